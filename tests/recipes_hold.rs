//! The shipped recipes: each reads, validates quickly, and says of itself what is true; the schema is fresh.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flip::command::{schema, validate, Failure};
use flip::device::DeviceConfig;
use flip::recipe::forecast::StageForecast;
use flip::recipe::{self, Recipe};
use flip::sweep::{study, SweepPlan};
use flip::train::Stage;

/// Name, batch, operations a pair, parameters.
const BENCH: [(&str, u64, f64, u64); 5] = [
    ("tiny", 128, 705_295_872.0, 4_593_793),
    ("s16", 32, 17_463_490_560.0, 54_912_385),
    ("b16", 16, 59_209_150_464.0, 139_776_513),
    ("l16", 16, 199_163_879_424.0, 412_998_401),
    ("h14", 8, 554_014_359_552.0, 966_394_881),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The documents in a folder.
fn documents(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join(folder)).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "ron"));
    paths.sort();
    paths
}

/// Every shipped recipe with its text.
fn shipped() -> Vec<(PathBuf, String, Recipe)> {
    let mut paths = Vec::new();
    for folder in ["recipes", "recipes/bench", "recipes/study"] {
        paths.extend(documents(folder).into_iter().filter(|path| !study::is_study(path)));
    }
    assert!(paths.len() >= 14, "{paths:?}");
    let read = |path: PathBuf| {
        let recipe = recipe::read(&path, &[]).unwrap_or_else(|errors| panic!("{errors}"));
        (path.clone(), std::fs::read_to_string(path).unwrap(), recipe)
    };
    paths.into_iter().map(read).collect()
}

#[test]
fn every_recipe_validates_in_under_a_second() {
    for (path, _, recipe) in shipped() {
        for json in [false, true] {
            let mut out = Vec::new();
            let started = Instant::now();
            assert!(
                validate::validate(&path, &[], &Default::default(), json, &mut out).is_ok(),
                "{}",
                path.display()
            );
            let took = started.elapsed();
            assert!(took < Duration::from_secs(1), "{} took {took:?}", path.display());
            let text = String::from_utf8(out).unwrap();
            println!("{text}{took:?}\n");
            if json {
                let value: serde_json::Value = serde_json::from_str(&text).unwrap();
                assert_eq!(value["valid"], true);
                assert_eq!(value["parameters"]["total"], recipe.model.parameter_counts().total());
            } else {
                assert!(text.starts_with(&format!("{} is valid\n", recipe.name)), "{text}");
            }
        }
    }
}

#[test]
fn a_broken_recipe_is_reported_as_json_too() {
    let mut out = Vec::new();
    let sets = ["stages.0.batch=0".to_owned()];
    let failure = validate::validate(
        &root().join("recipes/quickstart.ron"),
        &sets,
        &Default::default(),
        true,
        &mut out,
    );
    assert!(matches!(failure, Err(Failure::Usage(message)) if message.contains("expected 1 <= batch")));
    let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(value["valid"], false);
    assert_eq!(value["errors"][0]["field"], "stages[0].batch");
    assert_eq!(value["errors"][0]["set"], "stages.0.batch=0");
}

#[test]
fn headers_say_what_a_recipe_costs_and_how_to_run_it() {
    for (path, text, recipe) in shipped() {
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        let command = if name.contains("bench") { "bench" } else { "run" };
        assert!(text.contains(&format!("//     flip {command} {name}")), "{name}");
        let written =
            text.split("Cost:     about ").nth(1).and_then(|rest| rest.split(" FLOP").next()).unwrap();
        let flops = validate::report(&recipe).flops.unwrap();
        let off = written.parse::<f64>().unwrap() / flops;
        assert!((0.95..1.05).contains(&off), "{name}: says {written} FLOP, takes {flops:.2e}");
        let memory = text.split("about ").find_map(|rest| {
            let (number, unit) = rest.split_once(' ')?;
            let bytes =
                if unit.starts_with("GiB") { 1 << 30 } else { unit.starts_with("MiB").then_some(1 << 20)? };
            Some(number.parse::<f64>().ok()? * f64::from(bytes))
        });
        let device = if text.contains("of GPU memory") { DeviceConfig::Cuda(0) } else { recipe.device };
        let there = Recipe { device, ..recipe.clone() };
        let needed = validate::report(&there).stages.into_iter().map(|stage| match stage {
            StageForecast::Pretrain(plan) | StageForecast::Unmask(plan) => {
                plan.memory.total - plan.memory.images
            }
            StageForecast::Evaluate { .. } => 0.0,
        });
        let off = memory.unwrap() / needed.fold(0.0, f64::max);
        assert!((0.9..1.1).contains(&off), "{name}: says {memory:?} bytes, off by a factor of {off}");
        for line in text.lines() {
            assert!(line.chars().count() <= 110, "{name}: {line}");
        }
    }
}

/// Each study can be run, in half an hour on two cores, and says what it claims, how to run it, and what came out.
#[test]
fn studies_say_what_they_claim() {
    let guide = std::fs::read_to_string(root().join("src/guide/studies.md")).unwrap();
    let studies: Vec<PathBuf> =
        documents("recipes/study").into_iter().filter(|path| study::is_study(path)).collect();
    assert!(studies.len() >= 7, "{studies:?}");
    for path in studies {
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        let text = std::fs::read_to_string(&path).unwrap();
        for line in
            [&format!("//     flip sweep {name}\n"), "\n// Claim:   ", "\n// Time:    ", "\n// Verdict: "]
        {
            assert!(text.contains(line), "{name} lacks {line:?}");
        }
        let stem = path.file_stem().unwrap().to_str().unwrap();
        assert!(guide.contains(&format!("| `{stem}`")), "the guide does not name {stem}");
        let read = study::read(&path, &[]).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(read.study.seeds.get(), 3, "{name}");
        assert_eq!(stem, read.study.name);
        let out = tempfile::tempdir().unwrap();
        let plan = SweepPlan::new(read, out.path()).unwrap_or_else(|errors| panic!("{name}: {errors}"));
        // What two cores with AVX-512 reach with models as small as these.
        let minutes = plan.flops().unwrap() / 90e9 / 60.0;
        println!("{name}: {} runs, {minutes:.0} minutes", plan.cells.len());
        assert!(minutes < 30.0, "{name} takes {minutes:.0} minutes");
    }
}

#[test]
fn recipes_round_trip() {
    for (path, _, recipe) in shipped() {
        let written = recipe::write(&recipe);
        let back =
            recipe::read_text("written.ron", &written, &[]).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(back, recipe, "{}", path.display());
    }
}

#[test]
fn fields_may_still_be_written_by_their_former_names() {
    let text = std::fs::read_to_string(root().join("recipes/quickstart.ron")).expect("a recipe");
    let with = |limit: &str| {
        let text = text.replacen("data: (", &format!("data: (\n        limits: ({limit}),"), 1);
        assert!(text.contains(limit), "the recipe has no data to put a limit into");
        recipe::read_text("recipe.ron", &text, &[])
    };
    let now = with("image_bytes: 4096").expect("a recipe");
    assert_eq!(with("picture_bytes: 4096").expect("a recipe"), now);
    assert!(with("picture_bytes: 4096, image_bytes: 4096").unwrap_err().to_string().contains("given twice"));
    assert!(with("pictures_bytes: 4096").is_err());
}

/// The published schedules (configs of the official code): 19 steps an epoch of 1,281,167 pairs, 10,000 epochs on
/// LAION-400M, 20,000 at half of the rate on LAION-2B, and then 100.
#[test]
fn the_papers_recipes_have_the_papers_numbers() {
    for (name, steps, peak_lr, warmup) in [
        ("vit_b16", 190_000, 1.024e-3, 760.0),
        ("vit_l16", 190_000, 1.024e-3, 760.0),
        ("vit_l14", 190_000, 1.024e-3, 760.0),
        ("vit_h14", 190_000, 1.024e-3, 3_800.0),
        ("vit_l16_laion2b", 380_000, 5.12e-4, 760.0),
        ("vit_h14_laion2b", 380_000, 5.12e-4, 3_800.0),
        ("clip_b16_unmasked", 190_000, 1.024e-3, 760.0),
    ] {
        let (_, _, recipe) = shipped().into_iter().find(|(_, _, recipe)| recipe.name == name).unwrap();
        let report = serde_json::to_value(validate::report(&recipe)).unwrap();
        let pretrain = &report["stages"][0];
        let close = |value: &serde_json::Value, expected: f64| {
            (value.as_f64().unwrap() / expected - 1.0).abs() < 1e-12
        };
        assert!(close(&pretrain["peak_lr"], peak_lr) && close(&pretrain["warmup_steps"], warmup), "{name}");
        assert_eq!((pretrain["steps"].as_u64(), pretrain["batch"].as_u64()), (Some(steps), Some(65_536)));
        let masked = if name.starts_with("clip") { 1 } else { 2 };
        assert_eq!(
            pretrain["kept_patches"].as_u64().unwrap() * masked,
            pretrain["patches"].as_u64().unwrap()
        );
        if masked == 2 {
            let unmask = &report["stages"][1];
            assert!(close(&unmask["peak_lr"], 1.024e-5) && close(&unmask["warmup_steps"], 380.0), "{name}");
            assert_eq!((unmask["kind"].as_str(), unmask["steps"].as_u64()), (Some("unmask"), Some(1_900)));
        }
    }
}

/// Parameters and operations per pair (half of the patches dropped, at the recipe's batch) of the same models
/// written in PyTorch.
#[test]
fn bench_recipes_have_the_sizes_they_are_compared_at() {
    for (name, batch, flops_per_pair, parameters) in BENCH {
        let (_, _, recipe) =
            shipped().into_iter().find(|(_, _, recipe)| recipe.name == format!("bench_{name}")).unwrap();
        assert!(matches!(recipe.stages.as_slice(), [Stage::Pretrain(_)]), "{name}");
        let report = serde_json::to_value(validate::report(&recipe)).unwrap();
        let stage = &report["stages"][0];
        assert_eq!(stage["batch"], batch, "{name}");
        assert_eq!(stage["flops_per_pair"], flops_per_pair, "{name}");
        assert_eq!(report["parameters"]["total"], parameters, "{name}");
    }
}

#[test]
fn the_schema_is_fresh() {
    let mut out = Vec::new();
    let fresh = schema::export(&root().join("schema"), true, &mut out);
    assert!(fresh.is_ok(), "run `flip schema export` and commit schema/recipe.json");

    let folder = tempfile::tempdir().unwrap();
    assert!(schema::export(folder.path(), true, &mut out).is_err(), "a missing schema is not fresh");
    assert!(schema::export(&folder.path().join("new"), false, &mut out).is_ok());
    let written = std::fs::read_to_string(folder.path().join("new/recipe.json")).unwrap();
    assert_eq!(written, std::fs::read_to_string(root().join("schema/recipe.json")).unwrap());
    let value: serde_json::Value = serde_json::from_str(&written).unwrap();
    assert_eq!(value["$schema"], "https://json-schema.org/draft/2020-12/schema");
}
