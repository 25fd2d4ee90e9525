//! Whether an attachment stays: a pure decision, from what Podman said and what the kernel showed.
//!
//! When in doubt it stays: an address too many in use is a nuisance, a container that is cut off is a failure.

use super::attachment::Attachment;
use super::podman::Containers;
use super::processes::Processes;

/// With the reason, as a clause of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Stays,
    /// Its container is dead.
    Stale(String),
    /// Nobody who was asked knows; deleted only where the person says so.
    Unknown(String),
}

/// `containers` is nothing where there is no Podman.
pub(super) fn judge(attachment: &Attachment, containers: Option<&Containers>, processes: &Processes) -> Verdict {
    // Podman may be wrong, and others may live in a dead container's namespace (`--network container:web`).
    if processes.inhabit(attachment) {
        return Verdict::Stays;
    }
    if attachment.is_half_made() {
        return Verdict::Unknown("its ADD was cut short, or is at work at this moment".into());
    }
    let Some(containers) = containers else {
        return Verdict::Unknown("there is no Podman that could know its container".into());
    };
    let Some(state) = attachment.container.as_ref().and_then(|id| containers.get(id)) else {
        return Verdict::Unknown("Podman does not know its container".into());
    };
    match state.as_str() {
        "exited" | "dead" => Verdict::Stale(format!("its container is {state}")),
        // Podman's clean-up is due, or will start it again by its restart policy, as long as there is someone to do it.
        "stopped" | "removing" if !processes.tend(attachment) => Verdict::Stale(format!("its container is {state}")),
        "running" | "paused" | "stopping" if !processes.tend(attachment) => {
            Verdict::Stale(format!("its container has no process left, though Podman takes it for {state}"))
        }
        // Those that are about to run have no process yet: created, configured, initialized; and any word to come.
        _ => Verdict::Stays,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::netlink::Link;

    /// The number of the container's namespace.
    const NAMESPACE: i32 = 3;

    fn attachment() -> Attachment {
        let names = vec!["flatnet-att-0123@eth0".to_owned()];
        let link = Link { names, peer_namespace: Some(NAMESPACE), ..Link::default() };
        Attachment { container: Some("0123".into()), link, ..Attachment::default() }
    }

    fn podman(state: &str) -> Containers {
        [("4567".to_owned(), "running".to_owned()), ("0123".to_owned(), state.to_owned())].into()
    }

    fn processes(inhabited: bool, tended: bool) -> Processes {
        Processes {
            inhabited: inhabited.then_some(NAMESPACE).into_iter().chain([8]).collect(),
            tended: tended.then(|| "0123".to_owned()).into_iter().chain(["4567".to_owned()]).collect(),
        }
    }

    fn is_stale(state: &str, inhabited: bool, tended: bool) -> bool {
        matches!(judge(&attachment(), Some(&podman(state)), &processes(inhabited, tended)), Verdict::Stale(_))
    }

    #[rstest]
    #[case::exited("exited", true)]
    #[case::dead("dead", true)]
    #[case::stopped("stopped", true)]
    #[case::removing("removing", true)]
    #[case::running("running", true)]
    #[case::paused("paused", true)]
    #[case::stopping("stopping", true)]
    #[case::created("created", false)]
    #[case::configured("configured", false)]
    #[case::initialized("initialized", false)]
    #[case::a_word_to_come("frozen", false)]
    fn without_any_process_the_state_decides(#[case] state: &str, #[case] stale: bool) {
        assert_eq!(is_stale(state, false, false), stale);
        assert!(!is_stale(state, true, false), "a process is in its namespace");
    }

    #[rstest]
    #[case::exited("exited", true)]
    #[case::stopped("stopped", false)]
    #[case::removing("removing", false)]
    #[case::running("running", false)]
    fn what_somebody_tends_may_start_again(#[case] state: &str, #[case] stale: bool) {
        assert_eq!(is_stale(state, false, true), stale);
    }

    #[test]
    fn what_podman_does_not_know_is_unknown_unless_it_is_in_use() {
        let others = [("4567".to_owned(), "exited".to_owned())].into();
        let judged = |containers, inhabited| judge(&attachment(), containers, &processes(inhabited, false));
        assert!(matches!(judged(Some(&others), false), Verdict::Unknown(why) if why.contains("does not know")));
        assert!(matches!(judged(None, false), Verdict::Unknown(why) if why.contains("no Podman")));
        assert_eq!(judged(Some(&others), true), Verdict::Stays);
        assert_eq!(judged(None, true), Verdict::Stays);
    }

    #[test]
    fn a_half_made_link_is_unknown_whatever_podman_says() {
        let half =
            Attachment { link: Link { peer_namespace: Some(NAMESPACE), ..Link::default() }, ..Attachment::default() };
        let judged = judge(&half, Some(&podman("exited")), &processes(false, false));
        assert!(matches!(judged, Verdict::Unknown(why) if why.contains("cut short")));
    }

    #[test]
    fn an_end_that_is_in_no_namespace_of_its_own_stays() {
        let here = Attachment { link: Link { peer_namespace: None, ..attachment().link }, ..attachment() };
        assert_eq!(judge(&here, Some(&podman("exited")), &processes(false, false)), Verdict::Stays);
    }
}
