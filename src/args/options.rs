//! The flags of the scoring options, generated from the library's declarations.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};
use datafusion_rerank::{OptionDeclaration, OptionKind, ScoreOptions};
use serde_json::Value;

const HEADING: &str = "Model options";

/// The argument id of `--option`.
const NAMED: &str = "option";

/// Options of a model: a flag for each declared option that has one, and `--option NAME=VALUE` for every option.
pub(crate) type OptionArgs = OptionFlags<false>;

/// Like [`OptionArgs`], with flags only for options that shape the graph.
pub(crate) type GraphOptionArgs = OptionFlags<true>;

/// Scoring options as typed.
#[derive(Debug, Clone, Default)]
pub(crate) struct OptionFlags<const GRAPH_ONLY: bool> {
    /// Names of options and the values of their flags.
    pub(crate) flags: Vec<(&'static str, Value)>,
    /// Names and values of `--option`.
    pub(crate) named: Vec<(String, String)>,
}

impl<const GRAPH_ONLY: bool> OptionFlags<GRAPH_ONLY> {
    /// The options that have a flag, those that shape the graph last.
    fn declared() -> impl Iterator<Item = &'static OptionDeclaration> {
        let flags = |in_graph| {
            ScoreOptions::declarations().iter().filter(move |option| option.flag && option.in_graph == in_graph)
        };
        flags(false).filter(|_| !GRAPH_ONLY).chain(flags(true))
    }
}

impl<const GRAPH_ONLY: bool> Args for OptionFlags<GRAPH_ONLY> {
    fn augment_args(command: Command) -> Command {
        let named = Arg::new(NAMED)
            .long("option")
            .value_name("NAME=VALUE")
            .value_parser(name_and_value)
            .action(ArgAction::Append)
            .help("Any option of the model by its name; may be repeated")
            .help_heading(HEADING);
        command.args(Self::declared().map(flag)).arg(named)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<const GRAPH_ONLY: bool> FromArgMatches for OptionFlags<GRAPH_ONLY> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let flags = Self::declared().filter_map(|option| Some((option.name, value(option, matches)?))).collect();
        let named: Vec<(String, String)> = matches.get_many(NAMED).unwrap_or_default().cloned().collect();
        // The negation of a flag, which commands with settings have, sets no value.
        let negation = |name: &str| format!("no-{}", name.replace('_', "-"));
        let negated = |name: &str| matches!(matches.try_get_one(&negation(name)), Ok(Some(true)));
        if let Some((name, _)) = named.iter().find(|(name, _)| negated(name)) {
            let message = format!("--{} and --option {name} contradict each other; give one of them\n", negation(name));
            return Err(clap::Error::raw(clap::error::ErrorKind::ArgumentConflict, message));
        }
        Ok(Self { flags, named })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// `--max-length <TOKENS>`.
fn flag(option: &OptionDeclaration) -> Arg {
    let arg = Arg::new(option.name).long(option.name.replace('_', "-")).help(help(option)).help_heading(HEADING);
    match option.kind {
        OptionKind::Switch => arg.action(ArgAction::SetTrue),
        OptionKind::Count => arg.value_name("TOKENS").value_parser(value_parser!(usize)),
        OptionKind::Layers | OptionKind::Cutoffs => {
            arg.value_name("LAYERS").value_parser(value_parser!(usize)).value_delimiter(',').action(ArgAction::Append)
        }
        OptionKind::Word => arg.value_name(option.name.to_uppercase()),
        OptionKind::Folder => arg.value_name("DIR"),
        _ => arg.value_name("TEXT"),
    }
}

fn help(option: &OptionDeclaration) -> String {
    let sentences = option.documentation.trim_end_matches('.');
    let default = option.default;
    match option.kind {
        OptionKind::Switch => sentences.to_owned(),
        OptionKind::Layers | OptionKind::Cutoffs => {
            format!("{sentences}; separate several with commas [default: {default}]")
        }
        _ => format!("{sentences} [default: {default}]"),
    }
}

/// The value of the option's flag; `None` if it was not given.
fn value(option: &OptionDeclaration, matches: &ArgMatches) -> Option<Value> {
    match option.kind {
        OptionKind::Switch => matches.get_flag(option.name).then_some(Value::Bool(true)),
        OptionKind::Count => matches.get_one::<usize>(option.name).map(|&count| Value::from(count)),
        OptionKind::Layers => layers(option, matches).map(Value::from),
        // A single layer means one score, not a list of one.
        OptionKind::Cutoffs => layers(option, matches).map(|layers| match layers.as_slice() {
            [layer] => Value::from(*layer),
            layers => Value::from(layers),
        }),
        _ => matches.get_one::<String>(option.name).map(|text| Value::from(text.as_str())),
    }
}

fn layers(option: &OptionDeclaration, matches: &ArgMatches) -> Option<Vec<usize>> {
    matches.get_many(option.name).map(|layers| layers.copied().collect())
}

fn name_and_value(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The flags of a command line without the binary's name.
    fn parse<const GRAPH_ONLY: bool>(line: &[&str]) -> Result<OptionFlags<GRAPH_ONLY>, clap::Error> {
        let command = OptionFlags::<GRAPH_ONLY>::augment_args(Command::new("rerank").no_binary_name(true));
        OptionFlags::from_arg_matches(&command.try_get_matches_from(line)?)
    }

    /// A value that an option takes, as text.
    fn example(option: &OptionDeclaration) -> &'static str {
        match (option.kind, option.name) {
            (OptionKind::Switch, _) => "true",
            (OptionKind::Count, _) => "2",
            (OptionKind::Text | OptionKind::Folder, _) => "12",
            (OptionKind::Format, _) => "<{}>{}",
            (OptionKind::Layers | OptionKind::Cutoffs, _) => "8",
            (OptionKind::Word, "precision") => "int8",
            (OptionKind::Word, "heads") => "by_layer",
            other => panic!("no example of {other:?}"),
        }
    }

    #[test]
    fn every_option_can_be_given() {
        for option in ScoreOptions::declarations() {
            let named = format!("{}={}", option.name, example(option));
            let OptionFlags { named, .. } = parse::<false>(&["--option", &named]).unwrap();
            let mut by_name = ScoreOptions::default();
            by_name.set_text(&named[0].0, &named[0].1).unwrap();
            assert!(option.value(&by_name).is_some(), "{}", option.name);
            if option.flag {
                let flag = format!("--{}", option.name.replace('_', "-"));
                let value = (option.kind != OptionKind::Switch).then(|| example(option));
                let line: Vec<&str> = [flag.as_str()].into_iter().chain(value).collect();
                let OptionFlags { flags, .. } = parse::<false>(&line).unwrap();
                let mut by_flag = ScoreOptions::default();
                by_flag.set(flags[0].0, &flags[0].1).unwrap();
                assert_eq!(by_flag, by_name, "{flag}");
                assert_eq!(parse::<true>(&line).is_ok(), option.in_graph, "{flag}");
            }
        }
    }

    #[test]
    fn every_flag_is_of_a_declared_option() {
        let command = OptionArgs::augment_args(Command::new("rerank"));
        let flags: Vec<&str> = command.get_arguments().filter_map(Arg::get_long).collect();
        assert!(flags.len() > 1 && flags.contains(&NAMED), "{flags:?}");
        for flag in flags.into_iter().filter(|flag| *flag != NAMED) {
            let option = ScoreOptions::declaration(&flag.replace('-', "_")).unwrap();
            assert!(option.flag, "{flag}");
        }
    }

    #[test]
    fn what_was_not_typed_is_not_given() {
        let OptionFlags { flags, named } = parse::<false>(&[]).unwrap();
        assert!(flags.is_empty() && named.is_empty());
    }

    #[test]
    fn an_option_may_hold_equals_signs() {
        assert_eq!(name_and_value("prompt=a=b"), Ok(("prompt".to_owned(), "a=b".to_owned())));
        assert!(name_and_value("prompt").is_err());
    }
}
