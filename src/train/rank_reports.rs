//! Reports of the ranks to each other before every step: how long each took for what waits for no other, and what it
//! warned of. Rank 0 tells which rank holds the others up.

use serde::{Deserialize, Serialize};

use crate::log::Warnings;
use crate::ranks::Member;
use crate::record::RankTiming;

/// A rank is slow that takes so many times the median of all.
const SLOW: f64 = 1.3;
/// Share of a step in milliseconds, beyond the median of all ranks, for which a rank keeps the others waiting for its data.
const DATA_LATE: f64 = 0.1;
/// Rows in a row for which a rank has to be slow before it is told of.
const ROWS: u32 = 3;

/// Report of a rank on its last step.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RankReport {
    /// Seconds that it waited for data.
    pub data_s: f64,
    /// Seconds of the forward pass of both encoders.
    pub encode_s: f64,
    /// Warnings in its log since the report before: how many, and the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warned: Option<(u64, String)>,
}

impl RankReport {
    /// Adds the warnings that this process logged since they were last taken, where they go to a file of a rank.
    pub fn with_warnings(mut self) -> RankReport {
        self.warned = Warnings::take();
        self
    }
}

/// Reports of all ranks since the last row of `timing.jsonl`, on rank 0.
#[derive(Debug)]
pub struct RankReports {
    /// Names of the ranks in messages: `rank 3 (host n7)`.
    names: Vec<String>,
    steps: u32,
    sums: Vec<RankReport>,
    /// Rows in a row in which a rank was slow.
    slow: Vec<u32>,
    late: Vec<u32>,
    /// Warnings of each rank in the whole stage.
    warned: Vec<u64>,
}

impl RankReports {
    /// None yet, of these ranks.
    pub fn of(members: &[Member]) -> RankReports {
        let count = members.len();
        let name = |member: &Member| format!("rank {} (host {})", member.rank, member.host);
        RankReports {
            names: members.iter().map(name).collect(),
            steps: 0,
            sums: vec![RankReport::default(); count],
            slow: vec![0; count],
            late: vec![0; count],
            warned: vec![0; count],
        }
    }

    /// Takes what the ranks told before a step, in their order; passes on the first warning of each, and then every tenth,
    /// hundredth and so on.
    pub fn add(&mut self, reports: Vec<RankReport>) {
        self.steps += 1;
        for (rank, report) in reports.into_iter().enumerate().take(self.names.len()) {
            self.sums[rank].data_s += report.data_s;
            self.sums[rank].encode_s += report.encode_s;
            let Some((count, last)) = report.warned else { continue };
            let before = self.warned[rank];
            self.warned[rank] += count;
            if tens(before) < tens(self.warned[rank]) {
                tracing::warn!(
                    target: "flip::ranks", "{} warned {} times so far, see ranks/rank{rank:04}.log; the last: {last}",
                    self.names[rank], self.warned[rank]
                );
            }
        }
    }

    /// Means since the last call for a row of `timing.jsonl` whose steps took `step_ms`; warns of ranks that hold the others up.
    pub fn lap(&mut self, step_ms: f64) -> Vec<RankTiming> {
        let steps = f64::from(self.steps.max(1));
        let mean = |sum: &RankReport| RankTiming {
            data_ms: rounded(sum.data_s / steps * 1e3),
            encode_ms: rounded(sum.encode_s / steps * 1e3),
        };
        let row: Vec<RankTiming> = self.sums.iter().map(mean).collect();
        for told in self.hold_up(&row, step_ms) {
            tracing::warn!(target: "flip::ranks", "{told}");
        }
        self.steps = 0;
        self.sums.fill(RankReport::default());
        row
    }

    /// What is to be said of ranks that have held the others up for [`ROWS`] rows.
    fn hold_up(&mut self, row: &[RankTiming], step_ms: f64) -> Vec<String> {
        let data = median(row.iter().map(|rank| rank.data_ms));
        let encode = median(row.iter().map(|rank| rank.encode_ms));
        let mut told = Vec::new();
        for (rank, timing) in row.iter().enumerate() {
            self.slow[rank] = if timing.encode_ms > SLOW * encode { self.slow[rank] + 1 } else { 0 };
            self.late[rank] =
                if timing.data_ms - data > DATA_LATE * step_ms { self.late[rank] + 1 } else { 0 };
            let name = &self.names[rank];
            if self.slow[rank] == ROWS {
                told.push(format!(
                    "{name} is slow: {:.0} ms for the forward pass of its pairs, {encode:.0} ms on the median rank; all \
                     others wait for it. Is its machine busy, hot or short of cores?",
                    timing.encode_ms
                ));
            }
            if self.late[rank] == ROWS {
                told.push(format!(
                    "{name} waits {:.0} ms a step for data, the median rank {data:.0} ms, of steps of {step_ms:.0} ms; all \
                     others wait for it. Look at its disk or network, or give it more data.workers",
                    timing.data_ms
                ));
            }
        }
        told
    }
}

/// Number of digits: 0 for none.
fn tens(count: u64) -> u32 {
    count.checked_ilog10().map_or(0, |digits| digits + 1)
}

/// To a microsecond, so that rows of many ranks stay short.
fn rounded(milliseconds: f64) -> f64 {
    (milliseconds * 1e3).round() / 1e3
}

/// The lower one of two in the middle.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reports(count: usize) -> RankReports {
        let member = |rank| Member {
            rank,
            host: format!("n{rank}"),
            process: 1,
            device: "CPU".into(),
            local: 0,
            cores: 1,
        };
        RankReports::of(&(0..count).map(member).collect::<Vec<_>>())
    }

    #[test]
    fn a_slow_rank_is_named_once_it_has_been_slow_for_three_rows() {
        let mut reports = reports(4);
        let row = |encode_ms: f64, data_ms: f64| {
            let mut row = [RankTiming { data_ms: 1.0, encode_ms: 50.0 }; 4];
            row[2] = RankTiming { data_ms, encode_ms };
            row
        };
        let mut told = Vec::new();
        for (encode, data) in
            [(80.0, 1.0), (50.0, 1.0), (80.0, 1.0), (80.0, 40.0), (80.0, 40.0), (80.0, 40.0)]
        {
            told.push(reports.hold_up(&row(encode, data), 200.0));
        }
        let lengths: Vec<usize> = told.iter().map(Vec::len).collect();
        assert_eq!(lengths, [0, 0, 0, 0, 1, 1], "{told:?}");
        assert!(told[4][0].starts_with("rank 2 (host n2) is slow: 80 ms"), "{told:?}");
        assert!(told[5][0].starts_with("rank 2 (host n2) waits 40 ms a step for data"), "{told:?}");
    }

    #[test]
    fn a_row_has_means_of_its_own_steps() {
        let mut reports = reports(2);
        for data_s in [0.001, 0.003] {
            reports.add(vec![
                RankReport { data_s, encode_s: 0.01, warned: None },
                RankReport { data_s: 0.0, encode_s: 0.02, warned: Some((1, "full".into())) },
            ]);
        }
        let row = reports.lap(50.0);
        assert_eq!(row[0], RankTiming { data_ms: 2.0, encode_ms: 10.0 });
        assert_eq!(row[1], RankTiming { data_ms: 0.0, encode_ms: 20.0 });
        assert_eq!(reports.warned, [0, 2]);
        assert_eq!(reports.lap(50.0), [RankTiming::default(); 2]);
        assert_eq!([0, 1, 9, 10, 99, 100].map(tens), [0, 1, 1, 2, 2, 3]);
    }
}
