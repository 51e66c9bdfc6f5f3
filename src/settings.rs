//! `rerank.toml`: defaults for the options of the command line.
//!
//! Keys are the long names of options. A key outside any table applies to every command that has the option; a key in
//! the table of a command applies to that command, and takes precedence:
//!
//! ```toml
//! model = "m3=/models/bge-reranker-v2-m3"
//! device = "cuda:0"
//!
//! [run]
//! unit-rows = 500_000
//! ```
//!
//! A flag that a file turns on is turned off by its negation on the command line: `--no-normalize` for `--normalize`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Arg, ArgAction, Command};
use toml::{Table, Value};

/// Commands whose options can be settings.
const COMMANDS: &[&str] = &["run", "score", "sql"];

/// Options that cannot be settings, because they are about a single call: what to do, to which files, permission to
/// delete.
const NOT_SETTINGS: &[&str] = &[
    "command",
    "config",
    "dry-run",
    "file",
    "help",
    "json",
    "jsonl",
    "overwrite",
    "quiet",
    "report",
    "restart",
    "sql",
    "verbose",
    "version",
];

/// Name of the file, in the current folder and in the user's configuration folder.
const FILE: &str = "rerank.toml";

/// Prefix of the negation of a flag.
const NO: &str = "no-";

/// A `rerank.toml`.
#[derive(Debug)]
pub(crate) struct SettingsFile {
    pub(crate) path: PathBuf,
    values: Table,
}

impl SettingsFile {
    /// Reads the file at `path`, or the first in the usual places. `None` if there is no file there.
    pub(crate) fn find(path: Option<&Path>) -> Result<Option<Self>> {
        let path = match path {
            Some(path) => path.to_owned(),
            None => match places().into_iter().find(|place| place.is_file()) {
                Some(path) => path,
                None => return Ok(None),
            },
        };
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read settings {}", path.display()))?;
        let values = text.parse().with_context(|| format!("settings {} are no TOML", path.display()))?;
        Ok(Some(Self { path, values }))
    }

    /// Makes the settings the defaults of the command line's options.
    ///
    /// # Errors
    /// A key that is not an option, or a value of the wrong type.
    pub(crate) fn apply(&self, mut cli: Command) -> Result<Command> {
        let mut common = Vec::new();
        for (key, value) in &self.values {
            match value {
                Value::Table(table) if COMMANDS.contains(&key.as_str()) => {
                    for (name, value) in table {
                        if !set(&mut cli, key, name, value).with_context(|| self.place(name))? {
                            bail!("{}: {key} has no such setting; {}", self.place(name), known(&cli, &[key]));
                        }
                    }
                }
                Value::Table(_) => {
                    bail!(
                        "settings {}: there are no settings for [{key}]; there are for {}",
                        self.path.display(),
                        COMMANDS.join(", ")
                    );
                }
                value => common.push((key, value)),
            }
        }
        for (name, value) in common {
            let mut used = false;
            for command in COMMANDS {
                // The table of a command takes precedence.
                used |= self.has_own(command, name)
                    || set(&mut cli, command, name, value).with_context(|| self.place(name))?;
            }
            if !used {
                bail!("{}: no command has such a setting; {}", self.place(name), known(&cli, COMMANDS));
            }
        }
        Ok(cli)
    }

    /// Whether the file sets this option of a command.
    pub(crate) fn sets(&self, command: &str, name: &str) -> bool {
        self.has_own(command, name) || self.values.contains_key(name)
    }

    /// Whether the table of a command has this option.
    fn has_own(&self, command: &str, name: &str) -> bool {
        self.values.get(command).and_then(Value::as_table).is_some_and(|own| own.contains_key(name))
    }

    fn place(&self, name: &str) -> String {
        format!("settings {}: {name}", self.path.display())
    }
}

/// The message of a command line error, without the advice on usage that follows it.
pub(crate) fn first_paragraph(error: &clap::Error) -> String {
    let text = error.to_string();
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    paragraph.strip_prefix("error: ").unwrap_or(paragraph).to_owned()
}

/// Adds a negation for every flag that a file can turn on: `--no-normalize` for `--normalize`. If the command line has
/// both, the last one counts.
pub(crate) fn with_negations(mut cli: Command) -> Command {
    for command in COMMANDS {
        let Some(subcommand) = cli.find_subcommand(command) else { continue };
        let flags: Vec<Arg> = options_of(subcommand).filter(|option| is_flag(option)).cloned().collect();
        for flag in flags {
            cli = cli.mut_subcommand(command, |subcommand| with_negation(subcommand, &flag));
        }
    }
    cli
}

fn with_negation(command: Command, flag: &Arg) -> Command {
    let id = flag.get_id().to_string();
    let name = flag.get_long().unwrap_or_default();
    let negation_name = format!("{NO}{name}");
    let mut negation = Arg::new(negation_name.clone())
        .long(negation_name.clone())
        .help(format!("Turn --{name} off, which a settings file has turned on"))
        .action(ArgAction::SetTrue)
        .hide_short_help(true)
        .overrides_with(id.clone());
    if let Some(heading) = flag.get_help_heading() {
        negation = negation.help_heading(heading.to_owned());
    }
    // A default under a condition takes precedence over the default that the file sets.
    command
        .arg(negation)
        .mut_arg(id, |flag| flag.overrides_with(negation_name.clone()).default_value_if(negation_name, "true", "false"))
}

fn is_flag(option: &Arg) -> bool {
    matches!(option.get_action(), ArgAction::SetTrue)
}

/// The options of a command that can be settings. Negations cannot: a file says `false`.
pub(crate) fn options_of(command: &Command) -> impl Iterator<Item = &Arg> {
    let is_negation = |name: &str| {
        name.strip_prefix(NO).is_some_and(|name| command.get_arguments().any(|arg| arg.get_long() == Some(name)))
    };
    command
        .get_arguments()
        .filter(move |arg| arg.get_long().is_some_and(|name| !NOT_SETTINGS.contains(&name) && !is_negation(name)))
}

/// The commands that have settings. Those that the program was built without are left out.
pub(crate) fn commands(cli: &Command) -> impl Iterator<Item = &Command> {
    COMMANDS.iter().filter_map(|name| cli.find_subcommand(name))
}

/// The usual places of a file; the first that exists is read.
fn places() -> Vec<PathBuf> {
    let user = dirs::config_dir().map(|folder| folder.join("rerank").join(FILE));
    [Some(PathBuf::from(FILE)), user].into_iter().flatten().collect()
}

/// Makes a value the default of a command's option. Returns whether the command has the option.
fn set(cli: &mut Command, command: &str, name: &str, value: &Value) -> Result<bool> {
    let Some(subcommand) = cli.find_subcommand(command) else { return Ok(false) };
    let Some(option) = options_of(subcommand).find(|option| option.get_long() == Some(name)) else { return Ok(false) };
    let id = option.get_id().to_string();
    let is_flag = is_flag(option);
    let values = match value {
        Value::Array(values) => values.iter().map(text).collect::<Result<Vec<_>>>()?,
        value => vec![text(value)?],
    };
    if is_flag && !value.is_bool() {
        bail!("got {value}, expected true or false");
    }
    *cli = std::mem::take(cli)
        .mut_subcommand(command, |subcommand| subcommand.mut_arg(id, |option| option.default_values(values)));
    Ok(true)
}

fn text(value: &Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Ok(value.to_string()),
        value => Err(anyhow!("got {value}, expected a text, a number, true or false, or a list of them")),
    }
}

/// The names of all settings of some commands, for messages.
fn known(cli: &Command, commands: &[&str]) -> String {
    let commands = commands.iter().filter_map(|name| cli.find_subcommand(name));
    let mut names: Vec<&str> = commands.flat_map(options_of).filter_map(Arg::get_long).collect();
    names.sort_unstable();
    names.dedup();
    format!("settings are {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches};

    use super::*;
    use crate::args::{Cli, Command as Parsed};

    fn parse(settings: &str, line: &str) -> Result<Cli> {
        let settings = SettingsFile { path: "rerank.toml".into(), values: settings.parse()? };
        let matches = settings.apply(with_negations(Cli::command()))?.try_get_matches_from(line.split(' '))?;
        Ok(Cli::from_arg_matches(&matches)?)
    }

    #[test]
    fn the_command_line_comes_before_the_file_and_a_table_before_the_rest() {
        let settings =
            "model = 'm3'\nnormalize = true\nthreads = 1\ncutoff-layers = [8, 16]\n[run]\nthreads = 2\nunit-rows = 7";
        let Parsed::Run(run) = parse(settings, "rerank run in out --model mine").unwrap().command else { panic!() };
        assert_eq!((run.model.model.as_deref(), run.unit_rows, run.engine.threads), (Some("mine"), 7, Some(2)));
        assert_eq!(
            run.options.flags,
            [("normalize", serde_json::json!(true)), ("cutoff_layers", serde_json::json!([8, 16]))]
        );
        let Parsed::Score(score) = parse(settings, "rerank score a b").unwrap().command else { panic!() };
        assert_eq!((score.model.model.as_deref(), score.engine.threads), (Some("m3"), Some(1)));
    }

    #[test]
    fn a_negation_undoes_a_flag_of_the_file() {
        let normalize = |settings: &str, flags: &str| {
            let settings = SettingsFile { path: "rerank.toml".into(), values: settings.parse().unwrap() };
            let cli = settings.apply(with_negations(Cli::command())).unwrap();
            let matches = cli.get_matches_from(format!("rerank score{flags} a b").split(' '));
            matches.subcommand_matches("score").unwrap().get_flag("normalize")
        };
        for on in ["normalize = true", "[score]\nnormalize = true"] {
            assert!(normalize(on, ""));
            assert!(!normalize(on, " --no-normalize"));
            assert!(normalize(on, " --no-normalize --normalize"));
        }
        for off in ["", "normalize = false", "normalize = true\n[score]\nnormalize = false"] {
            assert!(!normalize(off, ""));
            assert!(normalize(off, " --normalize"));
            assert!(!normalize(off, " --normalize --no-normalize"));
        }
    }

    #[test]
    fn every_flag_that_is_a_setting_has_a_negation() {
        let cli = with_negations(Cli::command());
        for command in commands(&cli) {
            for flag in options_of(command).filter(|option| is_flag(option)) {
                let name = format!("no-{}", flag.get_long().unwrap());
                assert!(command.get_arguments().any(|option| option.get_long() == Some(&name)), "{name}");
                assert!(!options_of(command).any(|option| option.get_long() == Some(&name)), "{name} is a setting");
            }
        }
        let has = |command: &str, name| {
            let command = cli.find_subcommand(command).unwrap();
            command.get_arguments().any(|option| option.get_long() == Some(name))
        };
        assert!(has("run", "no-normalize") && has("score", "no-normalize") && !has("run", "no-overwrite"));
        cli.debug_assert();
    }

    #[test]
    fn what_is_no_setting_is_named() {
        let error = |settings: &str| format!("{:#}", parse(settings, "rerank score a b").unwrap_err());
        let unknown = error("devise = 'cpu'");
        assert!(unknown.starts_with("settings rerank.toml: devise: no command has such a setting; settings are "));
        assert!(unknown.contains(", device, "), "{unknown}");
        assert!(error("overwrite = true").contains("overwrite: no command has such a setting"));
        assert!(error("[score]\nunit-rows = 1").contains("unit-rows: score has no such setting"));
        assert!(error("[models]\na = 1").contains("there are no settings for [models]; there are for run, score, sql"));
        assert!(error("threads = { a = 1 }").contains("there are no settings for [threads]"));
        assert!(error("no-normalize = true").contains("no-normalize: no command has such a setting"));
        assert!(error("normalize = 'yes'").contains("got \"yes\", expected true or false"));
        assert!(error("threads = 'many'").contains("invalid value 'many' for '--threads"));
        assert!(error("threads = [[1]]").contains("expected a text"));
    }

    #[test]
    fn every_setting_belongs_to_a_command_line_option() {
        let cli = Cli::command();
        for name in NOT_SETTINGS {
            let has = |command: &Command| command.get_arguments().any(|option| option.get_long() == Some(name));
            let generated = ["help", "version"].contains(name);
            let optional = cfg!(not(feature = "shell")) && ["command", "file"].contains(name);
            assert!(generated || optional || has(&cli) || commands(&cli).any(has), "{name}");
        }
    }
}
