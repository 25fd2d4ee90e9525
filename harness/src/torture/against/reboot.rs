//! The host restarts under running containers, and no DEL comes: the power was cut.

use anyhow::Result;

use super::Loss;
use super::ground::Ground;
use crate::torture::Form;

/// How many containers run, and how often the host restarts; all fit into a /24.
fn size(form: Form) -> (usize, usize) {
    match form {
        Form::Short => (10, 2),
        Form::Long => (60, 4),
    }
}

/// Runs containers, restarts the host, counts what is taken though nothing runs, and starts the same containers again.
pub(super) fn run(ground: &mut Ground, form: Form) -> Result<Vec<Loss>> {
    let (containers, reboots) = size(form);
    let (mut stayed, mut given, mut refused) = (0, 0, 0);
    for reboot in 0..reboots {
        let before = ground.taken()?;
        let ids: Vec<String> = (0..containers).map(|number| format!("boot-{reboot}-{number}")).collect();
        for id in &ids {
            given += usize::from(ground.add(id)?.is_ok());
        }
        ground.reboot()?;
        stayed += ground.taken_since(&before)?.addresses.len();
        for id in &ids {
            if ground.add(id)?.is_err() {
                refused += 1;
            }
            // The runtime's: after a failed ADD, and when the container is removed.
            ground.del(id)?;
            ground.end(id)?;
        }
    }
    Ok(vec![
        Loss::new("the host restarts, no DEL comes: addresses that stay taken", stayed, given),
        Loss::new("the same containers start again: ADDs refused", refused, given),
    ])
}
