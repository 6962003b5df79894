//! `sweep.json` and `points.csv`: every number behind the charts.

use std::path::Path;

use serde_json::{json, Value};

use super::summary::Summary;
use super::{Along, Metric, Outcome, Spent, Sweep};
use crate::outside;
use crate::report::ReportError;
use crate::whole_file;

pub(super) fn write(
    sweep: &Sweep,
    metric: Option<&Metric>,
    summaries: Option<&[Summary]>,
    out: &Path,
) -> Result<(), ReportError> {
    let path = out.join("sweep.json");
    let mut text = format!("{:#}", as_json(sweep, metric, summaries));
    text.push('\n');
    whole_file::replace(&path, text.as_bytes()).map_err(ReportError::io("write", &path))?;
    let path = out.join("points.csv");
    let csv = as_csv(sweep).map_err(std::io::Error::other);
    csv.and_then(|csv| whole_file::replace(&path, &csv)).map_err(ReportError::io("write", &path))
}

fn as_json(sweep: &Sweep, metric: Option<&Metric>, summaries: Option<&[Summary]>) -> Value {
    let settings = sweep.settings.iter().enumerate().map(|(index, setting)| {
        let summary = summaries.and_then(|summaries| summaries.get(index));
        let cells = setting.cells.iter().map(|cell| {
            let (outcome, reason) = outcome(&cell.outcome);
            let points = cell.measured.iter().filter_map(|measured| {
                let value = metric?.of(&measured.row)?;
                let (row, spent) = (&measured.row, spent(&measured.spent));
                Some(json!({"stage": row.stage, "step": row.step, "spent": spent, "value": value}))
            });
            json!({
                "seed": cell.seed, "folder": cell.folder, "outcome": outcome, "reason": reason,
                "spent": spent(&cell.spent), "points": points.collect::<Vec<_>>(),
            })
        });
        let reached = summary.map(|summary| {
            let by_axis = ["train_s", "flops", "samples"].into_iter().zip(&summary.reached);
            by_axis
                .map(|(axis, reached)| (axis.to_owned(), json!(reached)))
                .collect::<serde_json::Map<_, _>>()
        });
        json!({
            "name": setting.name,
            "finished": summary.map(|summary| summary.finished),
            "last": summary.and_then(|summary| summary.last),
            "spent": summary.map(|summary| json!({
                "train_s": summary.train_s, "flops": summary.flops, "samples": summary.samples,
            })),
            "reached": reached,
            "cells": cells.collect::<Vec<_>>(),
        })
    });
    json!({
        "name": sweep.name,
        "claim": sweep.claim,
        "metric": metric.map(|metric| json!({
            "kind": metric.kind, "dataset": metric.dataset, "task": metric.task, "name": metric.name,
        })),
        "baseline": sweep.settings.get(sweep.baseline).map(|setting| &setting.name),
        "settings": settings.collect::<Vec<_>>(),
    })
}

fn spent(spent: &Spent) -> Value {
    let [train_s, flops, samples] = Along::ALL.map(|along| spent.along(along));
    json!({"train_s": train_s, "flops": flops, "samples": samples})
}

fn outcome(outcome: &Outcome) -> (&'static str, Option<&str>) {
    match outcome {
        Outcome::Finished => ("finished", None),
        Outcome::Unfinished => ("unfinished", None),
        Outcome::Failed(reason) => ("failed", Some(reason)),
    }
}

/// A line a metric of an evaluation of a run.
fn as_csv(sweep: &Sweep) -> Result<Vec<u8>, csv::Error> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record([
        "setting", "seed", "outcome", "stage", "step", "samples", "flops", "train_s", "kind", "dataset",
        "task", "metric", "value",
    ])?;
    for setting in &sweep.settings {
        for cell in &setting.cells {
            for measured in &cell.measured {
                for (name, value) in &measured.row.metrics {
                    let (row, spent) = (&measured.row, &measured.spent);
                    let numbers =
                        [spent.samples, spent.flops, spent.train_s, *value].map(|value| value.to_string());
                    let [samples, flops, train_s, value] = &numbers;
                    // A line of the file is a line of the table.
                    let texts = [&setting.name, &row.kind, &row.dataset, &row.task, name];
                    let [setting, kind, dataset, task, name] =
                        texts.map(|text| outside::shown(text).into_owned());
                    csv.write_record([
                        &setting,
                        &cell.seed.to_string(),
                        outcome(&cell.outcome).0,
                        &row.stage.to_string(),
                        &row.step.to_string(),
                        samples,
                        flops,
                        train_s,
                        &kind,
                        &dataset,
                        &task,
                        &name,
                        value,
                    ])?;
                }
            }
        }
    }
    csv.into_inner().map_err(|error| csv::Error::from(error.into_error()))
}
