//! Consoles: a ticket for the screen of a running VM, spoken by WebSocket with its host.

use chrono::{TimeDelta, Utc};
use virtualstack_model::compute::console::ConsoleTicket;
use virtualstack_model::compute::id::VmId;

use super::super::{Fault, FaultClass};
use super::adapter::VCenter;
use super::change::{busy, must_run};
use super::soap::Call;
use super::xml::Xml;

/// How long we say that a ticket is good. The reference of AcquireTicket gives no time; consumers count on two minutes. We
/// say less: a ticket that is refused too early costs less than one that fails late.
const LIFETIME: TimeDelta = TimeDelta::seconds(110);

impl VCenter {
    pub(super) async fn console(&self, vm: VmId) -> Result<ConsoleTicket, Fault> {
        let machine = self.machine(vm).await?.ok_or_else(|| busy(vm))?;
        must_run(&machine)?;
        let asked = Utc::now();
        let call = Call::read("AcquireTicket", &machine.reference, Xml::new().text("ticketType", "webmks"));
        let reply = match self.session.call(&call).await {
            Ok(reply) => reply,
            Err(error) => return Err(self.stale(error).await),
        };
        let text = |path: &str| reply.text_at(path).map(str::trim).filter(|text| !text.is_empty());
        let Some(ticket) = text("returnval/ticket") else {
            let message = "the hypervisor gives no console; ask the provider";
            return Err(Fault::new(
                FaultClass::Permanent,
                "HYPERVISOR_REFUSED",
                message,
                "AcquireTicket gave no ticket",
            ));
        };
        // Without a host it is the vCenter itself.
        let host = text("returnval/host").map_or_else(|| self.session.config().host(), str::to_owned);
        let port = text("returnval/port").unwrap_or("443");
        Ok(ConsoleTicket {
            url: format!("wss://{}:{port}/ticket/{ticket}", bracketed(&host)),
            ticket: ticket.to_owned(),
            protocol: "webmks".to_owned(),
            expires_at: asked + LIFETIME,
        })
    }
}

/// A host as it stands in an address.
fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_host_has_brackets() {
        assert_eq!(bracketed("fd00::1"), "[fd00::1]");
        assert_eq!(bracketed("[fd00::1]"), "[fd00::1]");
        assert_eq!(bracketed("esx1.example.com"), "esx1.example.com");
    }
}
