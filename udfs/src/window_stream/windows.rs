//! A source becomes windows, and windows become answers.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::{MaybeDone, maybe_done};
use futures::stream::{self, Stream};

use super::clock::{Clock, TokioClock};
use super::pace::{Following, Pace};
use super::waiting_rows::WaitingRows;
use crate::window::WINDOWS_IN_FLIGHT;

/// Reads `source` into windows and passes each to `score`, at most [`WINDOWS_IN_FLIGHT`] at a time. Returns what that
/// returns, in order. Reads on while windows are in flight, until a full window waits.
///
/// `following` says what windows follow beside their source; `None` for full windows only. What `score` returns must
/// need no more than one poll to begin its work.
///
/// The first error is the last item. One of the source comes after the rows before it.
pub(crate) fn score_windows<R, W, A, T, E>(
    source: impl Stream<Item = Result<R, E>> + Send,
    rows: W,
    following: Option<Following>,
    score: impl FnMut(W::Window) -> A + Send,
) -> impl Stream<Item = Result<T, E>> + Send
where
    W: WaitingRows<Rows = R, Error = E> + Send,
    A: Future<Output = Result<T, E>> + Send,
    T: Send,
    E: Send,
{
    let pace = following.map(|following| Pace::new(following, TokioClock::default()));
    let mut windows = Windows::new(source, rows, pace, score);
    stream::poll_fn(move |context| windows.poll_next(context))
}

struct Windows<S, W: WaitingRows, C, F, A: Future> {
    /// `None` once it has ended or failed.
    source: Option<Pin<Box<S>>>,
    /// `None` once there are no more windows to cut.
    rows: Option<W>,
    pace: Option<Pace<C>>,
    score: F,
    /// Oldest first.
    in_flight: VecDeque<Pin<Box<MaybeDone<A>>>>,
    /// What comes after the answers.
    failure: Option<W::Error>,
}

impl<S, W, C, F, A, T> Windows<S, W, C, F, A>
where
    S: Stream<Item = Result<W::Rows, W::Error>>,
    W: WaitingRows,
    C: Clock,
    F: FnMut(W::Window) -> A,
    A: Future<Output = Result<T, W::Error>>,
{
    fn new(source: S, rows: W, pace: Option<Pace<C>>, score: F) -> Self {
        let source = Some(Box::pin(source));
        Self { source, rows: Some(rows), pace, score, in_flight: VecDeque::new(), failure: None }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<T, W::Error>>> {
        for window in &mut self.in_flight {
            let _: Poll<()> = window.as_mut().poll(context);
        }
        loop {
            self.submit_full(context);
            if let Some(answer) = self.next_answer() {
                // Keeps the device busy while the answer is looked at.
                self.submit_full(context);
                return Poll::Ready(Some(answer));
            }
            let (Some(source), Some(rows)) = (&mut self.source, &mut self.rows) else {
                let is_over = self.in_flight.is_empty();
                return if is_over { Poll::Ready(self.failure.take().map(Err)) } else { Poll::Pending };
            };
            if rows.has_full() {
                return Poll::Pending;
            }
            if let Err(error) = rows.account() {
                self.stop(error);
                continue;
            }
            match source.as_mut().poll_next(context) {
                Poll::Ready(Some(Ok(more))) => {
                    let waited = rows.has_rest();
                    rows.push(more);
                    // Whether the first of the rest has just come.
                    if let Some(pace) = &mut self.pace
                        && rows.has_rest()
                        && (rows.has_full() || !waited)
                    {
                        pace.start();
                    }
                }
                Poll::Ready(ended) => {
                    self.source = None;
                    self.failure = ended.and_then(Result::err);
                }
                Poll::Pending => {
                    let in_flight = self.in_flight.len();
                    let is_due = rows.has_rest()
                        && in_flight < WINDOWS_IN_FLIGHT
                        && self.pace.as_mut().is_some_and(|pace| pace.is_due(in_flight, context));
                    if !is_due {
                        return Poll::Pending;
                    }
                    let rest = rows.take_rest();
                    self.submit(rest, context);
                }
            }
        }
    }

    /// Submits full windows, and the last one once the source has ended, while there is room.
    fn submit_full(&mut self, context: &mut Context<'_>) {
        while self.has_room(context)
            && let Some(rows) = &mut self.rows
        {
            let window = match rows.take_full() {
                Ok(None) if self.source.is_none() => rows.take_rest(),
                full => full,
            };
            if let Ok(None) = window {
                self.rows = self.rows.take().filter(|_| self.source.is_some());
                return;
            }
            self.submit(window, context);
        }
    }

    fn has_room(&mut self, context: &mut Context<'_>) -> bool {
        let in_flight = self.in_flight.len();
        in_flight < WINDOWS_IN_FLIGHT
            && (in_flight == 0 || self.pace.as_mut().is_none_or(|pace| pace.lets_more_go(context)))
    }

    fn submit(&mut self, window: Result<Option<W::Window>, W::Error>, context: &mut Context<'_>) {
        match window {
            Ok(None) => {}
            Ok(Some(window)) => {
                let mut answer = Box::pin(maybe_done((self.score)(window)));
                // The first poll begins the work.
                let _: Poll<()> = answer.as_mut().poll(context);
                self.in_flight.push_back(answer);
                if let Some(pace) = &mut self.pace {
                    pace.has_begun();
                }
            }
            Err(error) => self.stop(error),
        }
    }

    /// The answer of the oldest window, if it has one. Nothing follows an error.
    fn next_answer(&mut self) -> Option<Result<T, W::Error>> {
        let answer = self.in_flight.front_mut()?.as_mut().take_output()?;
        self.in_flight.pop_front();
        if answer.is_err() {
            (self.source, self.rows, self.failure) = (None, None, None);
            self.in_flight.clear();
        }
        Some(answer)
    }

    /// Cuts no more windows. The error comes after the answers of those in flight.
    fn stop(&mut self, error: W::Error) {
        (self.source, self.rows, self.failure) = (None, None, Some(error));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex, Weak};
    use std::task::{Wake, Waker};
    use std::time::Duration;

    use futures::channel::mpsc::{UnboundedSender, unbounded};
    use futures::future::BoxFuture;
    use futures::{FutureExt, StreamExt};
    use tokio::sync::oneshot;

    use super::*;
    use crate::Error;
    use crate::engine::{Activity, Submitted};
    use crate::window::{Growth, WindowCutter};

    type Items = Vec<u32>;

    /// A clock whose delay is over when the test says so.
    #[derive(Default, Clone)]
    struct TestClock(Arc<Mutex<(bool, Option<Waker>)>>);

    impl TestClock {
        fn expire(&self) {
            let mut state = self.0.lock().unwrap();
            state.0 = true;
            state.1.take().into_iter().for_each(Waker::wake);
        }
    }

    impl Clock for TestClock {
        fn start(&mut self, _: Duration) {
            self.0.lock().unwrap().0 = false;
        }

        fn is_over(&mut self, context: &mut Context<'_>) -> bool {
            let mut state = self.0.lock().unwrap();
            state.1 = Some(context.waker().clone());
            state.0
        }
    }

    /// A window that the test answers.
    struct InFlight {
        rows: Items,
        submitted: Submitted,
        answer: oneshot::Sender<Result<(), Error>>,
    }

    /// An engine whose windows wait for the test.
    #[derive(Default, Clone)]
    struct TestEngine {
        activity: Activity,
        windows: Arc<Mutex<VecDeque<InFlight>>>,
    }

    impl TestEngine {
        fn score(&self, window: &[Items]) -> BoxFuture<'static, Result<Items, Error>> {
            let (answer, answered) = oneshot::channel();
            let rows = window.concat();
            let submitted = self.activity.submit();
            self.windows.lock().unwrap().push_back(InFlight { rows: rows.clone(), submitted, answer });
            answered.map(|answer| answer.map_err(|_| Error::Stopped)?.map(|()| rows)).boxed()
        }

        /// The rows of the windows without an answer.
        fn windows(&self) -> Vec<Items> {
            self.windows.lock().unwrap().iter().map(|window| window.rows.clone()).collect()
        }

        /// The oldest window is encoded and on the device.
        fn run(&self) {
            drop(self.windows.lock().unwrap()[0].submitted.queue(1));
        }

        fn answer(&self, answer: Result<(), Error>) {
            let window = self.windows.lock().unwrap().pop_front().unwrap();
            drop(window.submitted);
            window.answer.send(answer).unwrap();
        }
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    type Polled = Poll<Option<Result<Items, Error>>>;
    type PollNext = Box<dyn FnMut(&mut Context<'_>) -> Polled>;

    /// A stream that is polled when it is woken, as an executor does.
    struct Test {
        engine: TestEngine,
        clock: TestClock,
        source: Option<UnboundedSender<Result<Items, Error>>>,
        /// Alive as long as the source is.
        read: Weak<()>,
        poll: PollNext,
        woken: Arc<Woken>,
        answers: Vec<Result<Items, String>>,
        ended: bool,
    }

    const FULL: usize = 5;

    impl Test {
        fn new(following: impl FnOnce(Vec<Activity>) -> Option<Following>) -> Self {
            let (engine, clock) = (TestEngine::default(), TestClock::default());
            let (sender, source) = unbounded();
            let alive = Arc::new(());
            let read = Arc::downgrade(&alive);
            let source = source.inspect(move |_| _ = &alive);
            let following = following(vec![engine.activity.clone()]);
            let growth = following.as_ref().map(|following| following.growth);
            let pace = following.map(|following| Pace::new(following, clock.clone()));
            let scoring = engine.clone();
            let cutter = WindowCutter::new(FULL).growing(growth);
            let mut windows = Windows::new(source, cutter, pace, move |window| scoring.score(&window));
            let poll = Box::new(move |context: &mut Context<'_>| windows.poll_next(context));
            let woken = Arc::new(Woken(AtomicBool::new(true)));
            Self { engine, clock, source: Some(sender), read, poll, woken, answers: Vec::new(), ended: false }
        }

        /// With a delay, and windows of full size from the first.
        fn following() -> Self {
            Self::new(|engines| Some(following(engines)))
        }

        fn send(&mut self, rows: impl IntoIterator<Item = u32>) {
            self.send_item(Ok(rows.into_iter().collect()));
        }

        fn send_item(&mut self, item: Result<Items, Error>) {
            self.source.as_ref().unwrap().unbounded_send(item).unwrap();
        }

        /// Polls while there are answers or somebody wakes the stream. Returns the windows that then wait for an
        /// answer.
        fn run(&mut self) -> Vec<Items> {
            while !self.ended && self.woken.0.swap(false, Ordering::SeqCst) {
                let waker = Waker::from(Arc::clone(&self.woken));
                while let Poll::Ready(answer) = (self.poll)(&mut Context::from_waker(&waker)) {
                    let Some(answer) = answer else {
                        self.ended = true;
                        break;
                    };
                    self.answers.push(answer.map_err(|error| error.to_string()));
                }
            }
            self.engine.windows()
        }

        fn answer(&mut self) -> Vec<Items> {
            self.engine.answer(Ok(()));
            self.run()
        }

        /// Ends the source and answers all windows. Returns all answers.
        fn finish(mut self) -> Vec<Result<Items, String>> {
            self.source = None;
            while !self.run().is_empty() {
                self.engine.answer(Ok(()));
            }
            assert!(self.ended);
            assert!((self.poll)(&mut Context::from_waker(Waker::noop())).is_ready());
            self.answers
        }
    }

    fn following(engines: Vec<Activity>) -> Following {
        Following { max_delay: Duration::from_secs(1), engines, growth: Growth::from(1000, 0) }
    }

    #[test]
    fn a_row_goes_at_once_when_there_is_nothing_to_do_and_the_rows_behind_it_together() {
        let mut test = Test::following();
        assert!(test.run().is_empty());
        test.send([1]);
        assert_eq!(test.run(), [vec![1]]);
        test.send([2]);
        test.send([3]);
        assert_eq!(test.run(), [vec![1]]);
        assert_eq!(test.answer(), [vec![2, 3]]);
        assert_eq!(test.finish(), [Ok(vec![1]), Ok(vec![2, 3])]);
    }

    #[test]
    fn a_stream_takes_its_turn_after_the_delay_while_another_keeps_the_engine_busy() {
        let mut test = Test::following();
        let mut other = test.engine.activity.submit();
        let queued = other.queue(3);
        test.send([1]);
        assert!(test.run().is_empty());
        test.clock.expire();
        assert_eq!(test.run(), [vec![1]]);
        // Another delay begins with the next row, and its end does not send it behind the first.
        test.send([2]);
        assert_eq!(test.run(), [vec![1]]);
        test.clock.expire();
        assert_eq!(test.run(), [vec![1]]);
        drop(queued);
        assert_eq!(test.run(), [vec![1]], "the first is being encoded");
        test.engine.run();
        assert_eq!(test.run(), [vec![1], vec![2]]);
    }

    #[test]
    fn rows_that_have_waited_long_go_once_the_queue_is_empty_and_others_do_not() {
        let mut test = Test::following();
        test.send([1]);
        assert_eq!(test.run(), [vec![1]]);
        test.send([2]);
        test.engine.run();
        assert_eq!(test.run(), [vec![1]], "no delay is over");
        test.clock.expire();
        assert_eq!(test.run(), [vec![1], vec![2]]);
        test.send([3]);
        test.run();
        test.clock.expire();
        assert_eq!(test.run(), [vec![1], vec![2]], "two are in flight");
        assert_eq!(test.answer(), [vec![2]], "the second waits for its encoding");
        test.engine.run();
        assert_eq!(test.run(), [vec![2], vec![3]]);
    }

    #[test]
    fn every_engine_has_to_be_idle() {
        let other = Activity::default();
        let mut test = Test::new(|mut engines| {
            engines.push(other.clone());
            Some(following(engines))
        });
        let busy = other.submit();
        test.send([1]);
        assert!(test.run().is_empty());
        drop(busy);
        assert_eq!(test.run(), [vec![1]]);
    }

    #[test]
    fn full_windows_go_two_at_a_time_and_no_more_than_another_is_read() {
        for has_delay in [true, false] {
            let mut test = Test::new(|engines| has_delay.then(|| following(engines)));
            // Others are at work, and their batches are on the device.
            let mut busy = test.engine.activity.submit();
            drop(busy.queue(1));
            for row in 0..40 {
                test.send([row]);
            }
            if has_delay {
                assert_eq!(test.run(), [vec![0, 1, 2, 3, 4]], "the second is not encoded beside the first");
                test.engine.run();
            }
            assert_eq!(test.run(), [vec![0, 1, 2, 3, 4], vec![5, 6, 7, 8, 9]]);
            let left = test.source.as_ref().unwrap().len();
            assert_eq!(left, 40 - 3 * FULL);
            assert_eq!(test.answer().len(), 2);
            assert_eq!(test.source.as_ref().unwrap().len(), left - FULL);
            let answers: Vec<u32> = test.finish().into_iter().flat_map(Result::unwrap).collect();
            assert_eq!(answers, (0..40).collect::<Vec<u32>>());
        }
    }

    #[test]
    fn without_a_delay_windows_depend_on_the_rows_alone() {
        let rows: Items = (0..23).collect();
        for piece in [1, 3, 23] {
            for rest in [false, true] {
                let mut test = Test::new(|_| None);
                for piece in rows.chunks(piece) {
                    test.send(piece.iter().copied());
                    if rest {
                        test.run();
                        test.clock.expire();
                        while !test.run().is_empty() {
                            test.answer();
                        }
                    }
                }
                let expected: Vec<_> = rows.chunks(FULL).map(|window| Ok(window.to_vec())).collect();
                assert_eq!(test.finish(), expected, "pieces of {piece}, {rest}");
            }
        }
    }

    #[test]
    fn the_first_windows_of_a_fast_source_are_small() {
        let rows: Items = (0..200).collect();
        for piece in [1, 7, 200] {
            let mut test = Test::new(|engines| {
                // One row of 4 tokens.
                Some(Following { growth: Growth::from(4, 0), ..following(engines) })
            });
            for piece in rows.chunks(piece) {
                test.send(piece.iter().copied());
            }
            let answers: Vec<Items> = test.finish().into_iter().map(Result::unwrap).collect();
            let sizes: Vec<usize> = answers.iter().map(Vec::len).collect();
            assert_eq!(sizes[..4], [1, 4, FULL, FULL], "pieces of {piece}");
            assert_eq!(answers.concat(), rows);
        }
    }

    #[test]
    fn an_error_of_the_source_comes_after_the_rows_before_it() {
        let mut test = Test::following();
        test.send(0..7);
        test.send_item(Err(Error::input("broken")));
        test.send([9]);
        assert_eq!(test.run(), [vec![0, 1, 2, 3, 4]]);
        assert_eq!(test.finish(), [Ok(vec![0, 1, 2, 3, 4]), Ok(vec![5, 6]), Err("broken".to_owned())]);
    }

    #[test]
    fn an_error_of_a_window_is_the_last_item_and_ends_the_reading() {
        let mut test = Test::following();
        test.send(0..12);
        test.run();
        test.engine.run();
        assert_eq!(test.run().len(), 2);
        test.engine.answer(Err(Error::input("broken")));
        test.run();
        assert_eq!(test.answers, [Err("broken".to_owned())]);
        assert!(test.ended && test.read.upgrade().is_none());
    }

    #[test]
    fn dropping_the_stream_drops_its_source_and_its_windows() {
        let mut test = Test::following();
        test.send(0..12);
        test.run();
        test.engine.run();
        assert_eq!(test.run().len(), 2);
        assert!(test.read.upgrade().is_some());
        test.poll = Box::new(|_| Poll::Pending);
        assert!(test.read.upgrade().is_none());
        assert!(test.engine.windows.lock().unwrap().iter().all(|window| window.answer.is_closed()));
    }

    #[cfg(feature = "datafusion")]
    #[test]
    fn several_models_follow_the_strictest_and_all_or_none() {
        let one = || Some(Following { max_delay: Duration::from_secs(3), ..following(vec![Activity::default()]) });
        let two = || Some(Following { growth: Growth::from(10, 3), ..following(vec![Activity::default()]) });
        let all = Following::all([one(), two()]).unwrap();
        assert_eq!((all.max_delay, all.engines.len(), all.growth), (Duration::from_secs(1), 2, Growth::from(10, 3)));
        assert!(Following::all([one(), None, two()]).is_none());
        assert!(Following::all([]).is_none());
    }

    /// A row behind another stream's work, and how long it takes to go. `None` if it does not go within a second.
    async fn waits_for(delay: Duration) -> Option<Duration> {
        let (engine, start) = (TestEngine::default(), std::time::Instant::now());
        let mut other = engine.activity.submit();
        let _queued = other.queue(1);
        let source = stream::iter([Ok(vec![1])]).chain(stream::pending());
        let following = Following { max_delay: delay, ..following(vec![engine.activity.clone()]) };
        let cutter = WindowCutter::new(FULL);
        let went = Arc::new(tokio::sync::Notify::new());
        let goes = Arc::clone(&went);
        let scored = score_windows(source, cutter, Some(following), move |window: Vec<Items>| {
            goes.notify_one();
            engine.score(&window)
        });
        tokio::select! {
            _ = scored.collect::<Vec<_>>() => None,
            () = went.notified() => Some(start.elapsed()),
        }
    }

    #[tokio::test]
    async fn the_clock_wakes_the_stream() {
        let delay = Duration::from_millis(20);
        let minute = Duration::from_mins(1);
        let waited = tokio::time::timeout(minute, waits_for(delay)).await.unwrap().unwrap();
        assert!(waited >= delay, "{waited:?}");
        assert!(tokio::time::timeout(minute, waits_for(Duration::ZERO)).await.unwrap().is_some());
        // A delay that no clock can show is no delay that is over.
        assert!(waits_for(Duration::MAX).now_or_never().is_none());
    }

    #[test]
    fn a_runtime_without_timers_and_no_runtime_at_all_wait_for_the_engine() {
        let scored = |engine: TestEngine| {
            let other = engine.activity.submit();
            let source = stream::iter([Ok(vec![1])]).chain(stream::pending());
            let following = following(vec![engine.activity.clone()]);
            let answering = engine.clone();
            let mut scored = Box::pin(score_windows(source, WindowCutter::new(FULL), Some(following), move |window| {
                engine.score(&window)
            }));
            async move {
                assert!(futures::poll!(scored.next()).is_pending());
                drop(other);
                assert!(futures::poll!(scored.next()).is_pending());
                answering.answer(Ok(()));
                scored.next().await.unwrap().unwrap()
            }
        };
        assert_eq!(futures::executor::block_on(scored(TestEngine::default())), [1]);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(runtime.block_on(scored(TestEngine::default())), [1]);
    }
}
