//! The scheduling class of the calling thread.

use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// Lets the node's services come first. A thread of the idle class gives way at once to any that
/// wakes; a thread that is only nice may keep its core until its slice is over (sched(7)).
pub(super) fn give_way(nice: Option<i32>) -> Result<(), String> {
    match nice {
        Some(nice) => set_niceness(nice),
        None => set_class(NormalThreadSchedulePolicy::Idle),
    }
}

/// Takes back what [`give_way`] gave away.
pub(super) fn compete() -> Result<(), String> {
    set_class(NormalThreadSchedulePolicy::Other)?;
    set_niceness(0)
}

fn set_class(class: NormalThreadSchedulePolicy) -> Result<(), String> {
    let policy = ThreadSchedulePolicy::Normal(class);
    set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy)
        .map_err(|e| e.to_string())
}

/// On Linux this is the calling thread's alone (setpriority(2), C library notes).
fn set_niceness(nice: i32) -> Result<(), String> {
    rustix::process::setpriority_process(None, nice).map_err(|e| e.to_string())
}
