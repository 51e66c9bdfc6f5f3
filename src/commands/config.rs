//! `rerank config`: prints the value of every setting.

use anyhow::Result;
use clap::{Arg, Command};
use toml::Value;

use crate::settings;
use crate::settings::SettingsFile;
use crate::terminal::Printer;

/// Prints, as a settings file, the value that every setting has unless the command line overrides it.
///
/// `cli` is the definition of the command line, with the settings of `file` as defaults.
pub(crate) fn run(cli: &Command, file: Option<&SettingsFile>, printer: Printer) -> Result<()> {
    match file {
        Some(settings) => printer.data(&format!("# settings: {}", settings.path.display()))?,
        None => printer.data("# settings: no rerank.toml in this folder nor in the user's")?,
    }
    for command in settings::commands(cli) {
        printer.data(&format!("\n[{}]", command.get_name()))?;
        let mut options: Vec<&Arg> = settings::options_of(command).collect();
        options.sort_by_key(|option| option.get_long());
        for option in options {
            let from_file =
                file.is_some_and(|file| file.sets(command.get_name(), option.get_long().unwrap_or_default()));
            printer.data(&line(option, from_file))?;
        }
    }
    Ok(())
}

fn line(option: &Arg, from_file: bool) -> String {
    let name = option.get_long().unwrap_or_default();
    let variable = option.get_env().and_then(|variable| Some((variable.to_str()?, std::env::var(variable).ok()?)));
    if let Some((variable, value)) = variable {
        return format!("{name} = {} # {variable}", Value::from(value));
    }
    let defaults = option.get_default_values().iter().map(|value| value.to_string_lossy().into_owned());
    let mut defaults: Vec<Value> = defaults.map(Value::from).collect();
    let value = match defaults.len() {
        0 => return format!("# {name} is not set"),
        1 => defaults.swap_remove(0),
        _ => Value::from(defaults),
    };
    format!("{name} = {value} # {}", if from_file { "settings" } else { "default" })
}
