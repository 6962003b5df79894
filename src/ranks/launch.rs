//! Detection of a launcher that started this process as one of several.

use std::sync::Arc;

use super::{Alone, Ranks, RanksError};

/// Rank and number of ranks, as a launcher says them in the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launched {
    /// Number of this process.
    pub rank: String,
    /// Number of processes.
    pub count: String,
}

/// Variables of rank and number: Open MPI's mpirun; MPICH's and `srun --mpi=pmi2`; `srun --mpi=pmix`, which tells the
/// number only as Slurm's own.
const LAUNCHERS: [(&str, &str); 3] = [
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("PMIX_RANK", "SLURM_NTASKS"),
];

impl Launched {
    /// As one of several; `None` for a process that was started by itself.
    pub fn detect(variable: impl Fn(&str) -> Option<String>) -> Option<Launched> {
        LAUNCHERS.iter().find_map(|(rank, count)| {
            let (rank, count) = (variable(rank)?, variable(count)?);
            (count != "1").then_some(Launched { rank, count })
        })
    }
}

/// Tasks of the step of a job that Slurm started this process in.
const STEP_TASKS: &str = "SLURM_STEP_NUM_TASKS";

/// True if Slurm started this process as one of several and told none of them how to meet: each would train alone, in the
/// same folder.
fn let_alone(variable: impl Fn(&str) -> Option<String>) -> bool {
    let meets = |name: &str| variable(name).is_some();
    let several =
        variable(STEP_TASKS).and_then(|count| count.parse::<u64>().ok()).is_some_and(|count| count > 1);
    several && !LAUNCHERS.iter().any(|(rank, _)| meets(rank))
}

/// Joins the other processes that this one was started with; alone, it is the only rank. Called once.
///
/// # Errors
/// There are others, and this binary or the MPI of this machine cannot talk to them.
pub fn join() -> Result<Arc<dyn Ranks>, RanksError> {
    let variable = |name: &str| std::env::var(name).ok();
    match Launched::detect(variable) {
        None if let_alone(variable) => {
            Err(RanksError::NoPmi { count: variable(STEP_TASKS).unwrap_or_default() })
        }
        None => Ok(Arc::new(Alone::default())),
        #[cfg(feature = "mpi")]
        Some(_) => Ok(Arc::new(super::mpi::Mpi::start()?)),
        #[cfg(not(feature = "mpi"))]
        Some(Launched { rank, count }) => Err(RanksError::NotBuilt { rank, count }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launchers_are_known_by_their_variables() {
        let of = |given: &[(&str, &str)]| {
            let given: Vec<(String, String)> =
                given.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
            Launched::detect(|name| given.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()))
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "1")]), None);
        let two = Some(Launched { rank: "1".into(), count: "2".into() });
        assert_eq!(of(&[("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "2")]), two);
        assert_eq!(of(&[("PMIX_RANK", "1"), ("SLURM_NTASKS", "2")]), two);
        let alone = |given: &[(&str, &str)]| {
            let_alone(|name| given.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string()))
        };
        assert!(alone(&[("SLURM_STEP_NUM_TASKS", "4"), ("SLURM_PROCID", "0")]));
        assert!(!alone(&[("SLURM_STEP_NUM_TASKS", "4"), ("PMIX_RANK", "0"), ("SLURM_NTASKS", "4")]));
        assert!(!alone(&[("SLURM_STEP_NUM_TASKS", "1")]));
        assert!(!alone(&[("SLURM_NTASKS", "4")]));
        // Slurm's number of tasks alone says nothing: one of them may have started this process by itself.
        assert_eq!(of(&[("SLURM_NTASKS", "2")]), None);
    }
}
