//! Advice where a subcommand is not known: the nearest one, or the one that does what was meant.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::Command;

use crate::recipe::nearest;

/// Words for what a subcommand does that other tools use, each with what to write here.
const MEANT: [(&[&str], &str); 17] = [
    (&["train", "fit", "pretrain", "start", "launch", "tune", "finetune", "fine-tune"], "flip run RECIPE"),
    (&["resume", "continue"], "flip run RUN_FOLDER --resume"),
    (&["eval", "test", "zeroshot", "zero-shot", "score", "linear-probe"], "flip evaluate RUN_FOLDER"),
    (&["encode", "infer", "predict", "features"], "flip embed RUN_FOLDER"),
    (
        &["index", "find", "query", "retrieve", "nearest", "neighbours"],
        "flip search RUN_FOLDER --images DIR TEXT",
    ),
    (&["server", "web", "gui", "ui", "api", "demo"], "flip serve RUN_FOLDER --images DIR"),
    (&["language-server", "editor"], "flip lsp"),
    (&["check", "lint", "verify", "dry-run", "cost", "plan"], "flip validate RECIPE"),
    (&["convert", "load"], "flip import CHECKPOINT --out DIR"),
    (&["onnx", "save", "publish"], "flip export RUN_FOLDER"),
    (&["completion", "complete"], "flip completions SHELL"),
    (&["describe", "info", "readme", "model-card"], "flip card RUN_FOLDER"),
    (&["grid", "ablate", "study", "search-grid"], "flip sweep RECIPE"),
    (&["pack", "inspect", "mask", "shards"], "flip data ..."),
    (&["vocab", "bpe"], "flip tokenizer ..."),
    (&["diff", "plot", "report"], "flip compare RUN_FOLDER..."),
    (&["benchmark", "profile", "speed", "throughput"], "flip bench RECIPE"),
];

/// The message for arguments whose subcommand is not known; none of other errors.
pub(super) fn told(error: &clap::Error, command: &Command) -> Option<String> {
    if error.kind() != ErrorKind::InvalidSubcommand {
        return None;
    }
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidSubcommand) else { return None };
    let advice =
        advice(given, command).map(|advice| format!("; did you mean `{advice}`?")).unwrap_or_default();
    Some(format!("error: there is no command `{given}`{advice}\n\nAll commands: flip --help"))
}

/// A command line in place of a subcommand that is not known.
fn advice(given: &str, command: &Command) -> Option<String> {
    if given.ends_with(".ron") {
        return Some(format!("flip run {given}"));
    }
    let names: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
    let lower = given.to_lowercase();
    let meant = MEANT.iter().find(|(words, _)| words.contains(&&*lower));
    if let Some((_, advice)) = meant {
        return Some((*advice).to_owned());
    }
    // A letter that is missing in a word of three is no longer near by the rule of fields.
    let short = || {
        let one_edit = |name: &&&str| strsim::damerau_levenshtein(&lower, name) == 1;
        names.iter().find(one_edit).copied()
    };
    nearest(given, &names).or_else(short).map(|name| format!("flip {name}"))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::command::Cli;

    #[test]
    fn a_misspelt_or_foreign_command_is_told_what_to_write() {
        let told =
            |given: &str| super::told(&Cli::try_parse_from(["flip", given]).unwrap_err(), &Cli::command());
        for (given, advice) in [
            ("rn", "`flip run`"),
            ("validat", "`flip validate`"),
            ("Train", "`flip run RECIPE`"),
            ("eval", "`flip evaluate RUN_FOLDER`"),
            ("find", "`flip search RUN_FOLDER --images DIR TEXT`"),
            ("server", "`flip serve RUN_FOLDER --images DIR`"),
            ("recipes/x.ron", "`flip run recipes/x.ron`"),
        ] {
            let told = told(given).unwrap();
            assert!(
                told.contains(&format!("there is no command `{given}`; did you mean {advice}?")),
                "{told}"
            );
        }
        assert!(told("xyzzy").unwrap().starts_with("error: there is no command `xyzzy`\n"));
        assert_eq!(told("--nonsense"), None);
    }

    #[test]
    fn no_word_of_another_tool_hides_a_command() {
        let command = Cli::command();
        for name in command.get_subcommands().map(Command::get_name) {
            assert!(MEANT.iter().all(|(words, _)| !words.contains(&name)), "{name}");
        }
    }
}
