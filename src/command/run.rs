//! `flip run`: a recipe to its end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use crate::data::DataError;
use crate::interpreter::{self, Environment, InterpreterError};
use crate::kernel::isa::Isa;
use crate::log::{LogError, Logging, LoggingConfig, Progress};
use crate::ranks::{self, Member, Ranks, RanksError};
use crate::recipe::files;
use crate::recipe::forecast::forecast;
use crate::recipe::{self, Recipe};
use crate::record::{Entry, EvaluationRow, RunFolder, RunFolderError, RunPaths};
use crate::report;
use crate::terminal::{self, say, say_error};
use crate::train::Ended;

use super::resume::GoingOn;
use super::signals::catch_signals;
use super::{read_recipe, Failure, Outcome, RecipeArgs};

#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Folder of the run [default: runs/NAME, NAME being that of the recipe].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on from the newest checkpoint in the folder. `flip run FOLDER --resume` needs no recipe: it is in the folder.
    #[arg(long, conflicts_with_all = ["restart", "resume_or_start"])]
    resume: bool,
    /// Go on where the folder holds a run, else start one: what a scheduler can repeat without looking.
    #[arg(long, conflicts_with = "restart")]
    resume_or_start: bool,
    /// Change a field from here on, for example --amend stages.0.schedule.lr=1e-4 (may be given several times): lr,
    /// length, batch, evaluators and the like. It is recorded in the folder, with the step, and shown in the report.
    #[arg(long, value_name = "PATH=VALUE", conflicts_with = "restart")]
    amend: Vec<String>,
    /// Delete the run that is in the folder, and start again.
    #[arg(long)]
    restart: bool,
    /// Log levels, format and sinks, watched while the run goes on [default: logging.ron in the run folder].
    #[arg(long, value_name = "FILE")]
    logging: Option<PathBuf>,
}

pub fn run(args: &RunArgs) -> Result<Outcome, Failure> {
    let ranks = ranks::join().map_err(|error| Failure::Usage(error.to_string()))?;
    let ended = run_as(args, &*ranks);
    if ranks.count() == 1 {
        return ended;
    }
    match ended {
        Ok(outcome) => {
            ranks.finish();
            Ok(outcome)
        }
        Err(failure) => {
            let (message, code) = failure.told();
            if ranks.rank() == 0 {
                say_error!("{message}");
            } else {
                tracing::error!(target: "flip", "{message}");
                // What concerns all of them is told by rank 0, which ends this process meanwhile.
                std::thread::sleep(MODESTY);
                say_error!("{}: {message}", ranks.name());
            }
            ranks.end(code)
        }
    }
}

/// So long other ranks than 0 wait before they tell of an error.
const MODESTY: Duration = Duration::from_secs(3);

impl RunArgs {
    /// Way in which the run is to begin, as messages say it.
    fn way(&self) -> String {
        let flags = [
            (self.resume, "--resume"),
            (self.resume_or_start, "--resume-or-start"),
            (self.restart, "--restart"),
        ];
        let mut way: Vec<&str> = flags.iter().filter(|(given, _)| *given).map(|(_, flag)| *flag).collect();
        way.extend(self.amend.iter().flat_map(|set| ["--amend", set.as_str()]));
        if way.is_empty() {
            way.push("a new run");
        }
        way.join(" ")
    }

    /// The same, where the folder has been looked at.
    fn entry(&self, root: &Path) -> Result<Entry, Failure> {
        let entry = match self.restart {
            true => Entry::Restart,
            false if self.resume || self.resume_or_start && RunPaths::new(root).holds_run() => Entry::Resume,
            false => Entry::Start,
        };
        if entry != Entry::Resume && !self.amend.is_empty() {
            return Err(Failure::Usage(
                "--amend changes a run that goes on; it needs --resume, and a run to resume".into(),
            ));
        }
        Ok(entry)
    }

    /// The recipe's file, and the run folder where that was given in its place.
    fn recipe_file(&self) -> Result<(RecipeArgs, Option<PathBuf>), Failure> {
        let RecipeArgs { recipe: given, sets } = &self.recipe;
        if !given.is_dir() {
            return Ok((RecipeArgs { recipe: given.clone(), sets: sets.clone() }, None));
        }
        let shown = given.display();
        if !(self.resume || self.resume_or_start) || self.out.as_ref().is_some_and(|out| out != given) {
            return Err(Failure::Usage(format!(
                "{shown} is a folder; expected a recipe. Where it is the folder of a run, go on with it: flip run {shown} \
                 --resume"
            )));
        }
        if !RunPaths::new(given).holds_run() {
            return Err(Failure::Usage(RunFolderError::NothingToResume { path: given.clone() }.to_string()));
        }
        let recipe = RunPaths::new(given).recipe();
        Ok((RecipeArgs { recipe, sets: sets.clone() }, Some(given.clone())))
    }
}

fn run_as(args: &RunArgs, ranks: &dyn Ranks) -> Result<Outcome, Failure> {
    let (given, folder) = args.recipe_file()?;
    let recipe = read_recipe(&given)?;
    let place = interpreter::place(&recipe).map_err(|error| Failure::Usage(error.to_string()))?;
    let root = folder.or(args.out.clone()).unwrap_or_else(|| Path::new("runs").join(&recipe.name));
    let written = recipe::write(&recipe);
    let device = place.gpu.map_or("CPU".to_owned(), |_| "GPU".to_owned());
    let alike = [
        ("seed", recipe.seed.to_string()),
        ("recipe", ranks::hash(&written)),
        ("run folder", root.display().to_string()),
        ("way to begin", args.way()),
        // Each rank updates its own copy of the weights: rounding must be the same.
        ("instruction set", Isa::detect().map_or_else(|error| error, |isa| isa.name().to_owned())),
    ];
    let members = ranks::agree(ranks, &device, &alike).map_err(|error| Failure::Usage(error.to_string()))?;
    if ranks.rank() > 0 {
        return run_beside(args, &root, ranks, &members);
    }

    let entry = args.entry(&root)?;
    let resume = entry == Entry::Resume;
    if !resume {
        everything_is_here(&recipe, None)?;
    }
    fits_into_memory(&recipe, place.gpu.is_some() || members.len() > 1)?;
    not_its_own_start(&recipe, &root)?;
    logging_is_readable(args.logging.as_deref(), &root)?;
    let folder = RunFolder::enter(&root, entry).map_err(|error| Failure::Usage(error.to_string()))?;
    let mut going_on = None;
    if resume {
        let with = GoingOn::with(&folder, &given, &args.amend)?;
        everything_is_here(&with.recipe, Some(&root))?;
        going_on = Some(with);
    } else {
        folder.replace(&folder.recipe(), written.as_bytes())?;
    }

    let progress = Progress::new();
    let logging_file = args.logging.clone().unwrap_or_else(|| folder.logging());
    let _logging = Logging::start(Some(&logging_file), &progress)?;
    let interrupt = catch_signals()?;
    tracing::info!(target: "flip", folder = %folder.root().display(), "run \"{}\"", recipe.name);
    for Member { rank, host, process, device, .. } in members.iter().filter(|_| members.len() > 1) {
        tracing::info!(target: "flip::ranks", rank, host, process, device, "one of {} ranks", members.len());
    }
    let mut from = None;
    let recipe = match going_on {
        Some(going_on) => {
            from = interpreter::newest(&folder)?;
            going_on.record(&folder, from.as_ref())?
        }
        None => recipe,
    };
    let written = recipe::write(&recipe);
    ranks::broadcast_bytes(ranks, written.as_bytes())?;

    let environment = Environment {
        ranks,
        members: &members,
        folder: Some(&folder),
        progress: &progress,
        interrupt: &interrupt,
    };
    let ended = interpreter::run(&recipe, from, &environment).map_err(refused)?;
    folder.still_there()?;
    let page = report::write(folder.root())?;
    if ended == Ended::Interrupted {
        tracing::warn!(target: "flip", "interrupted; go on with flip run {} --resume", folder.root().display());
        return Ok(Outcome::Interrupted);
    }
    let results = EvaluationRow::read_all(&folder.evaluations())?;
    say!("{}", report::table::text(&results, &report::stage_titles(&written), terminal::out_columns()));
    say!("run folder  {}", folder.root().display());
    say!("report      {}", page.display());
    Ok(Outcome::Done)
}

/// Another rank than 0: it computes, and logs into a file of its own.
fn run_beside(
    args: &RunArgs,
    root: &Path,
    ranks: &dyn Ranks,
    members: &[Member],
) -> Result<Outcome, Failure> {
    // Rank 0 has entered the run folder, and made place in it, when it says with which recipe the run goes on.
    let told = ranks::broadcast_bytes(ranks, &[])?;
    let recipe = recipe::read_text("the recipe of rank 0", &String::from_utf8_lossy(&told), &[])?;
    let config = args.logging.clone().unwrap_or_else(|| RunPaths::new(root).logging());
    let _logging = Logging::start_in_file(&config, &RunPaths::new(root).log_of_rank(ranks.rank()))?;
    let interrupt = catch_signals()?;
    let progress = Progress::lines(Duration::MAX);
    let environment =
        Environment { ranks, members, folder: None, progress: &progress, interrupt: &interrupt };
    Ok(match interpreter::run(&recipe, None, &environment).map_err(refused)? {
        Ended::Complete => Outcome::Done,
        Ended::Interrupted => Outcome::Interrupted,
    })
}

/// Data that is not what the recipe, the index or the other ranks say is refused like a wrong recipe.
fn refused(error: InterpreterError) -> Failure {
    match error {
        InterpreterError::Ranks(RanksError::NotAlike(_))
        | InterpreterError::Train(DataError::OtherData(_) | DataError::NoShards { .. }) => {
            Failure::Usage(error.to_string())
        }
        error => error.into(),
    }
}

/// Refuses a recipe that names files this machine does not have, before hours are spent on the stages
/// before they are needed. A run that goes on in `resumed` needs no more what it started from: its weights and its
/// tokenizer are there.
fn everything_is_here(recipe: &Recipe, resumed: Option<&Path>) -> Result<(), Failure> {
    let has = |field: &str| match (resumed, field) {
        (Some(_), "init") => true,
        (Some(root), field) if field.starts_with("model.text.tokenizer") => {
            RunPaths::new(root).tokenizer().is_file()
        }
        _ => false,
    };
    let missing = files::missing(recipe, has);
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Failure::Usage(missing.join("\n")))
    }
}

/// Refuses a run that this machine would end for want of memory. Of several ranks each needs less.
fn fits_into_memory(recipe: &Recipe, elsewhere: bool) -> Result<(), Failure> {
    let Some(host) = crate::device::host_memory() else { return Ok(()) };
    let larger = super::memory::beyond(recipe, &forecast(recipe), elsewhere, host);
    match larger.is_empty() {
        true => Ok(()),
        false => Err(Failure::Usage(larger.join("\n"))),
    }
}

/// Refuses a logging file with a mistake in it, and a given one that is not there, before the folder is taken.
pub(super) fn logging_is_readable(given: Option<&Path>, root: &Path) -> Result<(), Failure> {
    let path = given.map_or_else(|| RunPaths::new(root).logging(), Path::to_path_buf);
    match LoggingConfig::read(&path) {
        Err(LogError::Io { .. }) if given.is_none() && !path.exists() => Ok(()),
        read => read.map(drop).map_err(|error| Failure::Usage(error.to_string())),
    }
}

/// Refuses to start a run in the folder that its weights come from: --restart would delete them.
fn not_its_own_start(recipe: &Recipe, root: &Path) -> Result<(), Failure> {
    let Some(init) = &recipe.init else { return Ok(()) };
    match (init.path().canonicalize(), root.canonicalize()) {
        (Ok(init), Ok(root)) if init.starts_with(&root) => Err(Failure::Usage(format!(
            "init: {} lies in the folder of the run itself, {}; give another folder with --out",
            init.display(),
            root.display()
        ))),
        _ => Ok(()),
    }
}
