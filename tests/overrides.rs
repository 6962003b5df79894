//! `--set PATH=VALUE`: any field can be replaced or added, wherever the recipe leaves it.

use flip::data::SourceConfig;
use flip::duration::{Duration, Length, Phase};
use flip::mask::{ImageMask, Ratio, TextMask};
use flip::optimizer::{OptimizerConfig, PeakLr, ScheduleConfig};
use flip::recipe::{read_text, Precision, Recipe};
use flip::train::{PretrainConfig, Stage};

const QUICKSTART: &str = include_str!("../recipes/quickstart.ron");
const PICTOGRAMS: &str = include_str!("../recipes/pictograms.ron");

fn with(text: &str, sets: &[&str]) -> Recipe {
    let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
    read_text("recipe.ron", text, &sets).unwrap_or_else(|errors| panic!("{errors}"))
}

fn pretrain(recipe: &Recipe) -> &PretrainConfig {
    match &recipe.stages[0] {
        Stage::Pretrain(config) => config,
        other => panic!("{other:?}"),
    }
}

#[test]
fn written_fields_are_replaced() {
    let recipe = with(
        QUICKSTART,
        &[
            "stages.0.batch=64",
            "stages[0].length=Samples(6_400)",
            "stages.0.image_mask=Random(0.75)",
            "model.image.width=128",
        ],
    );
    let stage = pretrain(&recipe);
    assert_eq!(stage.batch.get(), 64);
    assert_eq!(stage.length, Length::Samples(6_400));
    assert_eq!(stage.image_mask, ImageMask::Random(Ratio::try_from(0.75).unwrap()));
    assert_eq!(recipe.model.image.width, 128);
}

#[test]
fn variants_are_looked_through_or_named() {
    let recipe =
        with(QUICKSTART, &["stages.0.schedule.lr.Absolute=2e-3", "stages.0.schedule.Cosine.warmup=Steps(7)"]);
    let ScheduleConfig::Cosine(schedule) = &pretrain(&recipe).schedule else { panic!() };
    assert_eq!((schedule.lr, schedule.warmup), (PeakLr::Absolute(2e-3), Phase::Steps(7)));
}

#[test]
fn absent_fields_are_added() {
    let recipe = with(
        QUICKSTART,
        &[
            "seed=7",
            "stages.0.micro_batch=32",
            "stages.0.optimizer.weight_decay=0.1",
            "stages.0.text_mask.Truncate=0.5",
            "checkpoints.keep=5",
            "checkpoints.every.Steps=10",
            "stages.2.clip_grad_norm=Some(1.0)",
            "model.logit_scale.init=2",
        ],
    );
    let stage = pretrain(&recipe);
    let OptimizerConfig::AdamW(optimizer) = &stage.optimizer else { panic!() };
    assert_eq!((optimizer.weight_decay, optimizer.beta2), (0.1, 0.95));
    assert_eq!(stage.text_mask, TextMask::Truncate(Ratio::try_from(0.5).unwrap()));
    assert_eq!((recipe.seed, stage.micro_batch.map(|n| n.get())), (7, Some(32)));
    assert_eq!((recipe.checkpoints.keep.get(), recipe.checkpoints.every), (5, Duration::Steps(10)));
    assert_eq!(recipe.model.logit_scale.init, 2.0);
}

#[test]
fn strings_need_no_quotes_of_their_own() {
    for (written, meant) in [
        ("/data/{00000..00004}.tar", "/data/{00000..00004}.tar"),
        ("'a b'.tar", "'a b'.tar"),
        ("\"quoted.tar\"", "quoted.tar"),
        ("r\"raw\\.tar\"", "raw\\.tar"),
        ("C:\\x.tar", "C:\\x.tar"),
        ("2024.tar", "2024.tar"),
        ("a=b.tar", "a=b.tar"),
    ] {
        let recipe = with(PICTOGRAMS, &[&format!("data.train.shards={written}")]);
        let SourceConfig::WebDataset(source) = recipe.data.train else { panic!() };
        assert_eq!(source.shards, meant.into());
    }
    assert_eq!(with(QUICKSTART, &["name=123"]).name, "123");
}

#[test]
fn later_overrides_see_earlier_ones() {
    let recipe = with(
        QUICKSTART,
        &[
            "data.validation=WebDataset(shards: \"a.tar\")",
            "data.validation.shards=b.tar",
            "stages.1=Evaluate([])",
            "stages.1.0=Retrieval(name: \"pairs\")",
            "stages.3=Evaluate([Retrieval(name: \"more\")])",
            "stages.4=Evaluate([Retrieval(name: \"appended\")])",
            "stages.0.evaluate=None",
            "stages.2.evaluate=None",
            "stages.0.batch=8",
            "stages.0.batch=16",
        ],
    );
    let Some(SourceConfig::WebDataset(source)) = &recipe.data.validation else { panic!() };
    assert_eq!(source.shards, "b.tar".into());
    assert_eq!((recipe.stages.len(), pretrain(&recipe).batch.get()), (5, 16));
}

#[test]
fn an_override_can_mend_the_file() {
    let broken = QUICKSTART.replacen("batch: 128", "batch: 0", 2);
    assert!(read_text("recipe.ron", &broken, &[]).is_err());
    with(&broken, &["stages.0.batch=8", "stages.2.batch=8"]);
    assert_eq!(with(QUICKSTART, &["precision=F32"]).precision, Precision::F32);
}

#[test]
fn what_an_override_brings_ends_with_it() {
    // Comments, attributes and brackets cannot reach the text that follows.
    for value in ["8 // rest", "8 /* rest */", "#![enable(unwrap_newtypes)] 8"] {
        assert_eq!(pretrain(&with(QUICKSTART, &[&format!("stages.0.batch={value}")])).batch.get(), 8);
    }
    for value in ["8, image_mask: Keep", "8)", "8 /* rest", "\"8", ""] {
        let set = format!("stages.0.batch={value}");
        let errors = read_text("recipe.ron", QUICKSTART, std::slice::from_ref(&set)).unwrap_err().errors();
        assert!(errors.iter().all(|error| error.set.as_deref() == Some(set.as_str())), "{errors:?}");
    }
}
