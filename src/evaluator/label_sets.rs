//! Images that may show several classes: how early those of a class come among all.

use super::average_precision::{average_precision, eleven_point};
use super::{Classes, EvaluatorError};
use crate::record::{ClassResult, Evaluation};

/// Scores of images, and the classes that they show.
#[derive(Debug, Default)]
pub(super) struct LabelSets {
    /// [n, classes]
    scores: Vec<f32>,
    /// [n]
    sets: Vec<Vec<u32>>,
}

impl LabelSets {
    /// Images counted.
    pub fn n(&self) -> usize {
        self.sets.len()
    }

    /// An image with a score for each class.
    ///
    /// # Errors
    /// It shows a class that there is not.
    pub fn add(&mut self, scores: &[f32], set: &[u32], key: &str) -> Result<(), EvaluatorError> {
        if let Some(&label) = set.iter().find(|&&class| class as usize >= scores.len()) {
            return Err(EvaluatorError::Label {
                key: key.into(),
                label: label.into(),
                classes: scores.len(),
                expected: format!("0 to {}", scores.len() - 1),
            });
        }
        self.scores.extend(scores);
        self.sets.push(set.to_vec());
        Ok(())
    }

    /// Mean average precision over the classes that an image shows, and chance: the mean share of images that show one.
    pub fn finish(self, kind: &str, dataset: &str, classes: &Classes) -> Evaluation {
        let count = classes.names.len();
        let (mut areas, mut elevens, mut shares) = (Vec::new(), Vec::new(), Vec::new());
        let mut per_class = Vec::new();
        for (class, name) in classes.names.iter().enumerate() {
            let scores: Vec<f32> = self.scores.chunks_exact(count).map(|row| row[class]).collect();
            let shown: Vec<bool> = self.sets.iter().map(|set| set.contains(&(class as u32))).collect();
            let (Some(area), Some(eleven)) =
                (average_precision(&scores, &shown), eleven_point(&scores, &shown))
            else {
                continue;
            };
            let n = shown.iter().filter(|shown| **shown).count();
            areas.push(area);
            elevens.push(eleven);
            shares.push(n as f64 / shown.len() as f64);
            per_class.push(ClassResult { name: name.clone(), n: n as u64, top1: area });
        }
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        Evaluation {
            kind: kind.into(),
            dataset: dataset.into(),
            task: classes.task.clone(),
            metrics: vec![
                ("map".into(), mean(&areas)),
                ("map_11_points".into(), mean(&elevens)),
                ("chance".into(), mean(&shares)),
                ("classes".into(), count as f64),
            ],
            n: self.sets.len() as u64,
            per_class,
            confusions: Vec::new(),
        }
    }
}
