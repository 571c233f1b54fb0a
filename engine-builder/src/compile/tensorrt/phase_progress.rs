//! How far TensorRT has come, from the phases inside phases that it reports.

use trtllm_sys::gpu::BuildPhase;

/// How far TensorRT has come with one rank, in steps out of `total`.
pub(super) struct PhaseProgress {
    total: u64,
    /// Name, step and steps of each phase that has begun and not ended, outermost first.
    phases: Vec<(String, i32, i32)>,
    reported: u64,
}

impl PhaseProgress {
    pub(super) const fn new(total: u64) -> Self {
        Self { total, phases: Vec::new(), reported: 0 }
    }

    /// Steps that this phase adds to those reported before.
    pub(super) fn advance(&mut self, phase: &BuildPhase<'_>) -> u64 {
        let known = self.phases.iter().position(|(name, ..)| name == phase.phase);
        match known {
            Some(index) if phase.step >= phase.steps => self.phases.truncate(index),
            Some(index) => {
                self.phases.truncate(index + 1);
                self.phases[index].1 = phase.step;
            }
            None => {
                let depth = self.phases.iter().position(|(name, ..)| Some(name.as_str()) == phase.parent);
                self.phases.truncate(depth.map_or(0, |depth| depth + 1));
                self.phases.push((phase.phase.to_owned(), phase.step, phase.steps));
            }
        }
        let (mut done, mut width) = (0.0, 1.0);
        for (_, step, steps) in &self.phases {
            width /= f64::from(*steps).max(1.0);
            done += f64::from(*step) * width;
        }
        // The last step is reported when the engine is finished.
        let done = ((done * self.total as f64) as u64).min(self.total - 1).max(self.reported);
        let added = done - self.reported;
        self.reported = done;
        added
    }

    /// The steps that are left when the engine is finished.
    pub(super) const fn remaining(&self) -> u64 {
        self.total - self.reported
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_inside_phases_add_up_and_never_go_back() {
        let mut progress = PhaseProgress::new(1000);
        let mut advance = |phase, parent, step, steps| progress.advance(&BuildPhase { phase, parent, step, steps });
        assert_eq!(advance("engine", None, 0, 4), 0);
        assert_eq!(advance("engine", None, 1, 4), 250);
        assert_eq!(advance("tactics", Some("engine"), 0, 10), 0);
        assert_eq!(advance("tactics", Some("engine"), 5, 10), 125);
        assert_eq!(advance("tactics", Some("engine"), 10, 10), 0);
        assert_eq!(advance("engine", None, 2, 4), 125);
        assert_eq!(advance("engine", None, 4, 4), 0);
        assert_eq!(progress.remaining(), 500);
    }
}
