//! Measurements that the arguments ask for.

use std::path::Path;
use std::sync::Arc;

use crate::data::source::clip_benchmark::{ClipBenchmarkConfig, Kind};
use crate::data::storage::Storage;
use crate::data::SourceConfig;
use crate::evaluator::data_sets::DATA_SETS;
use crate::evaluator::{ClassesConfig, FewShotConfig, LinearProbeConfig, Prompts, RetrievalConfig};
use crate::record::MissingSet;

use super::super::Failure;
use super::args::{EvaluateArgs, SuiteEvaluator};
use super::found::{find, suite, Found};

/// One evaluator on one data set.
#[derive(Debug, Clone)]
pub(super) struct Job {
    /// Name of the result.
    pub name: String,
    /// As a person named the data.
    pub place: String,
    pub source: SourceConfig,
    pub asks: Asks,
}

/// The question.
#[derive(Debug, Clone)]
pub(super) enum Asks {
    ZeroShot(Arc<Named>),
    Retrieval(RetrievalConfig),
    LinearProbe(LinearProbeConfig),
    FewShot(FewShotConfig),
}

/// Where class names and templates come from, where not from the data.
#[derive(Debug)]
pub(super) struct Named {
    pub classes: Option<std::path::PathBuf>,
    pub task: Option<String>,
    pub prompts: Option<Prompts>,
}

impl Named {
    /// The task of a `classes.json`, where the class names come from one.
    pub fn task_of_file(&self) -> Result<Option<ClassesConfig>, Failure> {
        let Some(file) = &self.classes else { return Ok(None) };
        let tasks = tasks(file)?;
        let task = match (&self.task, tasks.as_slice()) {
            (_, []) => return Ok(None),
            (Some(task), _) => task.clone(),
            (None, [task]) => task.clone(),
            (None, several) => {
                return Err(Failure::Usage(format!(
                    "--classes {}: it has several tasks; choose one with --task: {}",
                    file.display(),
                    several.join(", ")
                )))
            }
        };
        Ok(Some(ClassesConfig::Task { file: file.clone(), task }))
    }
}

/// The names of the tasks of a `classes.json`; none where the file is another one.
fn tasks(file: &Path) -> Result<Vec<String>, Failure> {
    if file.extension().is_none_or(|extension| extension != "json") {
        return Ok(Vec::new());
    }
    let text = crate::data::text::text_file::read(file)?;
    let value: serde_json::Value = serde_json::from_str(&text)
        .map_err(|error| Failure::Usage(format!("--classes {}: {error}", file.display())))?;
    let named = value["tasks"].as_array().into_iter().flatten().filter_map(|task| task["task"].as_str());
    Ok(named.map(str::to_owned).collect())
}

impl Job {
    pub fn kind(&self) -> &'static str {
        match self.asks {
            Asks::ZeroShot(_) => "zero_shot",
            Asks::Retrieval(_) => "retrieval",
            Asks::LinearProbe(_) => "linear_probe",
            Asks::FewShot(_) => "few_shot",
        }
    }
}

/// All that is to be measured, and the known data sets that a suite lacks.
pub(super) struct Plan {
    pub jobs: Vec<Job>,
    pub missing: Vec<MissingSet>,
}

impl Plan {
    /// Reads them from the arguments; the data is looked for, not opened.
    pub fn of(args: &EvaluateArgs) -> Result<Plan, Failure> {
        let asked = [&args.zero_shot, &args.retrieval, &args.linear_probe, &args.few_shot, &args.suite];
        if asked.iter().all(|places| places.is_empty()) {
            return Err(Failure::Usage(
                "nothing to measure; give --zero-shot, --retrieval, --linear-probe, --few-shot or --suite with data".into(),
            ));
        }
        if let Some(path) = args.classes.as_deref().filter(|path| !path.is_file()) {
            return Err(Failure::Usage(format!("--classes {}: no such file", path.display())));
        }
        let prompts = args.prompts.as_deref().map(Prompts::from);
        if let Some(Prompts::File(path)) = prompts.as_ref().filter(|prompts| !is_there(prompts)) {
            return Err(Failure::Usage(format!(
                "--prompts {}: no such file; expected one, or openai80, openai7 or plain",
                path.display()
            )));
        }
        let named = Arc::new(Named { classes: args.classes.clone(), task: args.task.clone(), prompts });
        let split = args.split.as_str();
        let (mut jobs, mut missing) = (Vec::new(), Vec::new());
        for place in &args.zero_shot {
            jobs.push(find("--zero-shot", place, split)?.job(Asks::ZeroShot(named.clone())));
        }
        for place in &args.retrieval {
            let found = find("--retrieval", place, split)?;
            if let SourceConfig::Folder(folder) = &found.source {
                return Err(Failure::Usage(format!(
                    "--retrieval {place}: {} has no captions; expected shards with KEY.txt members, as '{place}/*.tar', a \
                     folder of CLIP_benchmark, or a source as recipes have it: Table(...), Karpathy(...)",
                    folder.path.display()
                )));
            }
            jobs.push(found.retrieval());
        }
        for place in &args.linear_probe {
            jobs.push(find("--linear-probe", place, split)?.linear_probe("--linear-probe")?);
        }
        for place in &args.few_shot {
            jobs.push(find("--few-shot", place, split)?.few_shot("--few-shot")?);
        }
        for root in &args.suite {
            let found = suite(root, split)?;
            for set in &found {
                jobs.extend(set.of_suite(&args.suite_with, &named)?);
            }
            let lacks = |name: &str| found.iter().all(|found| found.name != name);
            missing.extend(DATA_SETS.iter().filter(|set| lacks(set.name)).map(|set| MissingSet {
                dataset: set.name.into(),
                title: set.title.into(),
                how_to_get: set.how_to_get(),
            }));
        }
        Ok(Plan { jobs, missing })
    }
}

fn is_there(prompts: &Prompts) -> bool {
    !matches!(prompts, Prompts::File(path) if !Path::new(path).is_file())
}

impl Found {
    fn job(&self, asks: Asks) -> Job {
        Job { name: self.name.clone(), place: self.place.clone(), source: self.source.clone(), asks }
    }

    fn retrieval(&self) -> Job {
        self.job(Asks::Retrieval(RetrievalConfig {
            name: self.name.clone(),
            data: None,
            captions: Default::default(),
            image_mask: Default::default(),
        }))
    }

    /// The images that a classifier learns from.
    fn train(&self, flag: &str) -> Result<SourceConfig, Failure> {
        self.train.clone().ok_or_else(|| {
            Failure::Usage(format!(
                "{flag} {}: a classifier learns from other images than it is tried on; expected `train` and `test` (or `val`) in \
                 the folder, each with one sub-folder a class or with shards",
                self.place
            ))
        })
    }

    fn linear_probe(&self, flag: &str) -> Result<Job, Failure> {
        Ok(self.job(Asks::LinearProbe(LinearProbeConfig::new(&self.name, self.train(flag)?))))
    }

    fn few_shot(&self, flag: &str) -> Result<Job, Failure> {
        Ok(self.job(Asks::FewShot(FewShotConfig::new(&self.name, self.train(flag)?))))
    }

    /// Measurement of a folder of CLIP_benchmark in a suite.
    fn of_suite(&self, with: &[SuiteEvaluator], named: &Arc<Named>) -> Result<Vec<Job>, Failure> {
        let kind = match &self.source {
            SourceConfig::ClipBenchmark(config) => config.kind(&Storage::default()),
            _ => Ok(Kind::Classification),
        };
        // What cannot be read is told where it is measured.
        if matches!(kind, Ok(Kind::Retrieval)) {
            return Ok(vec![self.retrieval()]);
        }
        if matches!(kind, Ok(Kind::MultiLabel)) {
            // Classifiers learn one class an image.
            return Ok(vec![self.job(Asks::ZeroShot(named.clone()))]);
        }
        let job = |evaluator: &SuiteEvaluator| match evaluator {
            SuiteEvaluator::ZeroShot => Ok(self.job(Asks::ZeroShot(named.clone()))),
            SuiteEvaluator::LinearProbe => self.linear_probe("--suite"),
            SuiteEvaluator::FewShot => self.few_shot("--suite"),
        };
        with.iter().map(job).collect()
    }
}

/// The folder of CLIP_benchmark of a source, where it is one.
pub(super) fn folder_of(source: &SourceConfig) -> Option<&ClipBenchmarkConfig> {
    match source {
        SourceConfig::ClipBenchmark(config) => Some(config),
        _ => None,
    }
}
