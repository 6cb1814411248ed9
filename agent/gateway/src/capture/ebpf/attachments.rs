//! The programs on the cgroups. Dropping an attachment detaches it, and so does the end of the
//! process.

use std::{collections::BTreeMap, fs::File};

use aya::{
    Ebpf,
    programs::{
        CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, SockOps, cgroup_skb::CgroupSkbLink,
        sock_ops::SockOpsLink,
    },
};

use super::{cgroups::Cgroup, error::EbpfError, loader::with_causes};

struct Attachment {
    _payload: [CgroupSkbLink; 2],
    _lifecycle: Option<SockOpsLink>,
}

#[derive(Default)]
pub(super) struct Attachments {
    by_cgroup: BTreeMap<Cgroup, Attachment>,
}

impl Attachments {
    /// Attaches where nothing is yet, then detaches where nothing should be: in between a packet
    /// may pass two programs, never none.
    pub(super) fn set(
        &mut self,
        object: &mut Ebpf,
        wanted: &[Cgroup],
        has_lifecycle: bool,
    ) -> Result<(), EbpfError> {
        for cgroup in wanted {
            if !self.by_cgroup.contains_key(cgroup) {
                let attachment = attach(object, cgroup, has_lifecycle)?;
                self.by_cgroup.insert(cgroup.clone(), attachment);
            }
        }
        self.by_cgroup.retain(|cgroup, _| wanted.contains(cgroup));
        Ok(())
    }

    pub(super) fn cgroups(&self) -> impl Iterator<Item = &Cgroup> {
        self.by_cgroup.keys()
    }
}

fn attach(
    object: &mut Ebpf,
    cgroup: &Cgroup,
    has_lifecycle: bool,
) -> Result<Attachment, EbpfError> {
    let folder = File::open(&cgroup.path)
        .map_err(|source| EbpfError::Read { path: cgroup.path.clone(), source })?;
    let failed = |program: &'static str, error: &dyn std::error::Error| EbpfError::Attach {
        program,
        cgroup: cgroup.path.clone(),
        reason: with_causes(error),
    };
    // A link lets other programs be attached as well, whatever the mode says.
    let mode = CgroupAttachMode::Single;
    let lifecycle = if has_lifecycle {
        let program: &mut SockOps = object
            .program_mut("lifecycle")
            .and_then(|p| p.try_into().ok())
            .ok_or(EbpfError::ObjectMismatch("lifecycle"))?;
        let id = program.attach(&folder, mode).map_err(|e| failed("lifecycle", &e))?;
        Some(program.take_link(id).map_err(|e| failed("lifecycle", &e))?)
    } else {
        None
    };
    let mut attach_payload = |name: &'static str, direction| {
        let program: &mut CgroupSkb = object
            .program_mut(name)
            .and_then(|p| p.try_into().ok())
            .ok_or(EbpfError::ObjectMismatch(name))?;
        let id = program.attach(&folder, direction, mode).map_err(|e| failed(name, &e))?;
        program.take_link(id).map_err(|e| failed(name, &e))
    };
    Ok(Attachment {
        _payload: [
            attach_payload("ingress", CgroupSkbAttachType::Ingress)?,
            attach_payload("egress", CgroupSkbAttachType::Egress)?,
        ],
        _lifecycle: lifecycle,
    })
}
