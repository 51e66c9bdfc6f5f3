//! Writes scored rows to files, commits units, and makes the output files of several units.

use std::collections::HashMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::interval_at;

use super::plan::{Content, Failed, Journal, Plan, Scored, Task};
use super::progress::Progress;
use super::scored_copy::ScoredCopy;
use crate::files::OutputFile;
use crate::job::{FileMarker, Marker, Unit, now};
use crate::report::Tally;
use crate::storage::Written;
use crate::terminal::{LINE_INTERVAL, Stopped, one_line};

/// Copies being made at once. They share the disk or the network with the reader.
const COPIES_AT_ONCE: usize = 2;

/// Writes rows as they arrive, one file per unit.
pub(crate) async fn write(
    scored: mpsc::Receiver<Result<Scored, Failed>>,
    plan: &Plan,
    journal: Option<Journal<'_>>,
    progress: &mut Progress,
    stop: Pin<&mut impl Future<Output = Stopped>>,
) -> Result<()> {
    let stopped = Arc::<AtomicBool>::default();
    let mut writer = Writer {
        plan,
        journal,
        current: None,
        since: Instant::now(),
        finished: 0,
        copies: Copies::new(plan, Arc::clone(&stopped)),
        stopped,
    };
    let Err(Failed { task, error }) = write_all(scored, &mut writer, progress, stop).await else { return Ok(()) };
    writer.stopped.store(true, Ordering::Relaxed);
    writer.copies.stop().await;
    if let Some(unfinished) = writer.current {
        unfinished.file.abort().await;
    }
    if let (Some(journal), Some(task)) = (writer.journal, task) {
        let reason = match &journal.worker {
            Some(worker) => format!("executor {}: {}", worker.name, one_line(&error)),
            None => one_line(&error),
        };
        let task = &plan.tasks[task];
        journal.ledger.fail(&task.unit, plan.input_name(task), reason).await;
    }
    Err(error)
}

async fn write_all(
    mut scored: mpsc::Receiver<Result<Scored, Failed>>,
    writer: &mut Writer<'_>,
    progress: &mut Progress,
    mut stop: Pin<&mut impl Future<Output = Stopped>>,
) -> Result<(), Failed> {
    let no_unit = |error| Failed { task: None, error };
    let mut lines = interval_at(tokio::time::Instant::now() + LINE_INTERVAL, LINE_INTERVAL);
    loop {
        let next = tokio::select! {
            biased;
            stopped = &mut stop => return Err(no_unit(stopped.into())),
            _ = lines.tick() => {
                progress.line();
                continue;
            }
            Some(copied) = writer.copies.next() => {
                copied.map_err(no_unit)?;
                progress.add_file();
                continue;
            }
            next = scored.recv() => next,
        };
        let Some(next) = next else { break };
        let mut next = next?;
        next.tally.add_written(next.batches.iter().map(|batch| batch.num_rows() as u64).sum());
        let task = next.task;
        progress.add(&next.tally, &writer.plan.tasks[task].unit);
        let makes_file = next.last && writer.plan.tasks[task].content != Content::Scores;
        // Writing is not interrupted, but copying ends early when the run is stopped.
        let flag = Arc::clone(&writer.stopped);
        let mut writing = pin!(writer.write(next));
        let written = tokio::select! {
            biased;
            written = &mut writing => written,
            stopped = &mut stop => {
                flag.store(true, Ordering::Relaxed);
                drop(writing.await);
                return Err(no_unit(stopped.into()));
            }
        };
        written.map_err(|error| Failed { task: Some(task), error })?;
        if makes_file {
            progress.add_file();
        }
    }
    // A stage that panics closes its channel, just like one that has finished.
    let (done, all) = (writer.finished, writer.plan.tasks.len());
    if done != all {
        return Err(no_unit(anyhow!("the run stopped after {done} of {all} units were complete")));
    }
    loop {
        let copied = tokio::select! {
            biased;
            stopped = &mut stop => return Err(no_unit(stopped.into())),
            _ = lines.tick() => {
                progress.line();
                continue;
            }
            copied = writer.copies.next() => copied,
        };
        let Some(copied) = copied else { return Ok(()) };
        copied.map_err(no_unit)?;
        progress.add_file();
    }
}

/// Writes scored rows to files.
struct Writer<'a> {
    plan: &'a Plan,
    journal: Option<Journal<'a>>,
    current: Option<CurrentUnit>,
    /// When the last unit was committed.
    since: Instant,
    finished: usize,
    copies: Copies<'a>,
    /// Whether copying must end.
    stopped: Arc<AtomicBool>,
}

/// The unit being written.
struct CurrentUnit {
    task: usize,
    file: OutputFile,
    tally: Tally,
}

impl Writer<'_> {
    async fn write(&mut self, scored: Scored) -> Result<()> {
        let Scored { task, schema, batches, tally, last } = scored;
        let mut current = match self.current.take() {
            Some(current) if current.task == task => current,
            Some(current) => {
                current.file.abort().await;
                return Err(anyhow!("unit {} ended before it was complete", current.task));
            }
            None => {
                let Task { unit, destination, content, .. } = &self.plan.tasks[task];
                let (destination, format) = (destination.clone(), self.plan.format);
                let file = match content {
                    Content::Rows | Content::Scores => OutputFile::create(destination, schema, format)?,
                    Content::Copy => {
                        let input = self.plan.inputs[unit.input].clone();
                        let stopped = Arc::clone(&self.stopped);
                        let groups = unit.groups.clone();
                        OutputFile::splice(destination, input, groups, schema, format.compression, stopped).await?
                    }
                };
                CurrentUnit { task, file, tally: Tally::default() }
            }
        };
        current.tally.merge(&tally);
        for batch in batches {
            if let Err(error) = current.file.write(&batch).await {
                self.current = Some(current);
                return Err(error);
            }
        }
        if !last {
            self.current = Some(current);
            return Ok(());
        }
        let written = current.file.finish().await?;
        self.commit(task, current.tally, written).await?;
        self.finished += 1;
        self.copies.unit_is_done(&self.plan.tasks[task].unit);
        Ok(())
    }

    async fn commit(&mut self, task: usize, tally: Tally, written: Written) -> Result<()> {
        let seconds = self.since.elapsed().as_secs_f64();
        self.since = Instant::now();
        let Some(Journal { ledger, worker }) = &mut self.journal else { return Ok(()) };
        let task = &self.plan.tasks[task];
        let marker = Marker {
            unit: task.unit.id.clone(),
            input: self.plan.input_name(task).to_owned(),
            number: task.unit.number,
            output: task.name.clone(),
            size_bytes: written.size_bytes,
            etag: written.etag,
            tally,
            seconds,
            executor: worker.clone(),
            finished: now(),
        };
        ledger.commit(&marker).await.with_context(|| format!("cannot commit unit {}", marker.unit))
    }
}

/// The output files of several units, each begun when all of them are done.
struct Copies<'a> {
    /// The copies that wait for units: how many, by index of the input and number of the first unit.
    waiting: HashMap<(usize, usize), (usize, &'a ScoredCopy)>,
    running: JoinSet<Result<FileMarker>>,
    room: Arc<Semaphore>,
    stopped: Arc<AtomicBool>,
}

/// Tells output files apart: the input's index, and the number of the first unit.
fn file_of(unit: &Unit) -> Option<(usize, usize)> {
    unit.piece.map(|piece| (unit.input, piece.first))
}

impl<'a> Copies<'a> {
    fn new(plan: &'a Plan, stopped: Arc<AtomicBool>) -> Self {
        let room = Arc::new(Semaphore::new(COPIES_AT_ONCE));
        let mut copies = Self { waiting: HashMap::new(), running: JoinSet::new(), room, stopped };
        let mut units = HashMap::<_, usize>::new();
        for file in plan.tasks.iter().filter_map(|task| file_of(&task.unit)) {
            *units.entry(file).or_default() += 1;
        }
        for copy in &plan.copies {
            let Some(file) = copy.units.first().and_then(file_of) else { continue };
            match units.get(&file) {
                Some(units) => drop(copies.waiting.insert(file, (*units, copy))),
                None => copies.begin(copy),
            }
        }
        copies
    }

    fn unit_is_done(&mut self, unit: &Unit) {
        let Some(file) = file_of(unit) else { return };
        let Some((units, copy)) = self.waiting.get_mut(&file) else { return };
        *units -= 1;
        if *units == 0 {
            let copy: &ScoredCopy = copy;
            self.waiting.remove(&file);
            self.begin(copy);
        }
    }

    fn begin(&mut self, copy: &ScoredCopy) {
        let (copy, room, stopped) = (copy.clone(), Arc::clone(&self.room), Arc::clone(&self.stopped));
        self.running.spawn(async move {
            let _permit = room.acquire_owned().await?;
            copy.make(stopped).await
        });
    }

    /// The next copy that is complete; `None` if none is being made.
    async fn next(&mut self) -> Option<Result<FileMarker>> {
        let made = self.running.join_next().await?;
        Some(made.context("a copy was not finished").and_then(|made| made))
    }

    /// Waits until the copies that are being made have ended.
    async fn stop(&mut self) {
        self.room.close();
        while self.running.join_next().await.is_some() {}
    }
}
