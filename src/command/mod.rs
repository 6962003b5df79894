//! The command line: one file a subcommand.

pub mod bench;
pub mod compare;
pub mod data;
pub mod embed;
pub mod evaluate;
pub mod export;
mod failure;
pub mod import;
pub mod lsp;
mod memory;
pub mod model_card;
mod number;
mod recipe_args;
mod resume;
pub mod run;
pub mod schema;
pub mod search;
pub mod serve;
mod signals;
pub mod sweep;
pub mod tokenizer;
mod unknown;
pub mod validate;

use std::path::PathBuf;
use std::process::ExitCode;

pub use failure::{Failure, Outcome};
use recipe_args::read_recipe;
pub use recipe_args::RecipeArgs;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::log::Progress;
use crate::terminal::{self, say, say_error, Unwritten};

/// Pre-trains CLIP-style image-text models by masking (FLIP), tunes them without masks, evaluates them.
#[derive(Debug, Parser)]
#[command(name = "flip", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a recipe: its stages in sequence, to the end.
    Run(run::RunArgs),
    /// Run a recipe in many variants, and compare them: charts over time, compute and pairs seen.
    Sweep(sweep::SweepArgs),
    /// Check a recipe or a study and say what it would cost, in a second.
    Validate(ValidateArgs),
    /// The JSON Schemas of recipes and studies, for editors.
    Schema {
        #[command(subcommand)]
        command: SchemaCommand,
    },
    /// Time training steps of the recipe's model on random input.
    Bench(bench::BenchArgs),
    /// Look at data, time it, make shards of it.
    Data {
        #[command(subcommand)]
        command: data::DataCommand,
    },
    /// Make tokenizers.
    Tokenizer {
        #[command(subcommand)]
        command: tokenizer::TokenizerCommand,
    },
    /// Embed images or texts with a trained model.
    Embed(embed::EmbedArgs),
    /// Find the images nearest to a text or to an image.
    Search(search::SearchArgs),
    /// Search images from a browser or over HTTP, on this machine.
    Serve(serve::ServeArgs),
    /// Measure a trained model on data sets: zero-shot, retrieval, linear probe, few-shot, or a whole suite.
    Evaluate(evaluate::EvaluateArgs),
    /// Make a run folder of a checkpoint of open_clip, of transformers' CLIP, or of the official FLIP code.
    Import(import::ImportArgs),
    /// Write the model of a run as a folder that open_clip, transformers or an ONNX runtime loads.
    Export(export::ExportArgs),
    /// Describe the model of a run in Markdown: sizes, training, results.
    Card(model_card::CardArgs),
    /// Put several runs side by side: a table here, and a page with their curves.
    Compare(compare::CompareArgs),
    /// Check and complete recipes in an editor: a language server on standard input and output.
    Lsp,
    /// Print what a shell needs to complete commands and options: flip completions bash >
    /// ~/.local/share/bash-completion/completions/flip
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
struct ValidateArgs {
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    cluster: validate::ClusterArgs,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum SchemaCommand {
    /// Write schema/recipe.json and schema/study.json.
    Export {
        /// Folder to write into.
        #[arg(long, default_value = "schema")]
        out: PathBuf,
        /// Write nothing; fail if the file there is not up to date.
        #[arg(long)]
        check: bool,
    },
}

impl Cli {
    /// The command that the program was started with; where that is none, or help was asked for, what it says and the
    /// exit code.
    ///
    /// # Errors
    /// The arguments are wrong: exit code 2. Help or the version was asked for: exit code 0.
    pub fn given() -> Result<Cli, ExitCode> {
        terminal::begin();
        Cli::try_parse().map_err(|error| {
            if let Some(told) = unknown::told(&error, &Cli::command()) {
                say_error!("{told}");
                return ExitCode::from(2);
            }
            let text = error.render();
            if error.use_stderr() {
                let text = if terminal::colours() { text.ansi().to_string() } else { text.to_string() };
                say_error!("{}", text.trim_end());
                return ExitCode::from(2);
            }
            let text = if terminal::out_colours() { text.ansi().to_string() } else { text.to_string() };
            say!("{}", text.trim_end());
            printed(ExitCode::SUCCESS)
        })
    }

    /// Runs the command and turns its end into an exit code: 0 done, 2 wrong recipe or arguments, 1 anything
    /// else, 130 interrupted. What was printed is part of it: 1 where standard output could not be written, unless its
    /// reader closed it.
    pub fn execute(self) -> ExitCode {
        let mut out = terminal::stdout();
        let ended = match &self.command {
            Command::Run(args) => run::run(args),
            Command::Sweep(args) => sweep::sweep(args, &mut terminal::stdout_that_goes_on()),
            Command::Validate(args) => {
                validate::validate(&args.recipe.recipe, &args.recipe.sets, &args.cluster, args.json, &mut out)
            }
            Command::Schema { command: SchemaCommand::Export { out: folder, check } } => {
                schema::export(folder, *check, &mut out)
            }
            Command::Bench(args) => bench::bench(args),
            Command::Data { command } => data::run(command, &mut out),
            Command::Tokenizer { command } => {
                tokenizer::run(command, &Progress::new(), &mut terminal::stdout_that_goes_on())
            }
            Command::Embed(args) => embed::embed(args),
            Command::Search(args) => search::search(args),
            Command::Serve(args) => serve::serve(args),
            Command::Evaluate(args) => evaluate::evaluate(args),
            Command::Import(args) => import::import(args),
            Command::Export(args) => export::export(args),
            Command::Card(args) => model_card::card(args, &mut out),
            Command::Compare(args) => compare::compare(args, &mut out),
            Command::Lsp => lsp::lsp(),
            Command::Completions { shell } => completions(*shell, &mut out),
        };
        // A line without an end is written as well, before the exit code is known.
        drop(out);
        match ended {
            Ok(Outcome::Done) => printed(ExitCode::SUCCESS),
            Ok(Outcome::Interrupted) => printed(ExitCode::from(130)),
            Err(Failure::Other(error)) if Unwritten::is_behind(&*error) => printed(ExitCode::SUCCESS),
            Err(failure) => {
                let (message, code) = failure.told();
                say_error!("{message}");
                ExitCode::from(code)
            }
        }
    }
}

/// Prints the completions of a shell.
fn completions(shell: clap_complete::Shell, out: &mut dyn std::io::Write) -> Result<Outcome, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "flip", &mut script);
    out.write_all(&script)?;
    Ok(Outcome::Done)
}

/// The exit code of a command that ended well but for what it printed.
fn printed(code: ExitCode) -> ExitCode {
    let Err(message) = terminal::outcome() else { return code };
    say_error!("error: {message}");
    if code == ExitCode::SUCCESS {
        return ExitCode::FAILURE;
    }
    code
}
