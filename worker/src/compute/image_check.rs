//! The check of a template's file: its SHA-256 and all that is in it, in one pass.

use futures::StreamExt as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use virtualstack_images::{Format, Image, ImageFault, Inspection, Limits, Place};
use virtualstack_store::operations::{Failure, FileFault};

use crate::adapters::hypervisor::import::{Attendance, ImageSource};
use crate::adapters::hypervisor::{Fault, FaultClass};
use crate::engine::step_error::{code, failure};

/// Chunks that wait for their turn: while some are checked, the next are read.
const WAITING: usize = 4;

/// What a check has found.
pub(crate) type Checked = Result<Box<Image>, Failure>;

/// Reads a file of so many bytes to its end, and checks it. Only what keeps it from being read is a fault.
pub(crate) async fn check(
    source: &dyn ImageSource,
    (format, size): (Format, u64),
    expected: &str,
    attendance: &Attendance,
) -> Result<Checked, Fault> {
    let (chunks, mut waiting) = mpsc::channel::<bytes::Bytes>(WAITING);
    // Digests and inflating take a core, which calls that wait for answers must not miss.
    let work = tokio::task::spawn_blocking(move || {
        let (mut digest, mut inspection) = (Sha256::new(), Inspection::new(format, size, Limits::default()));
        while let Some(chunk) = waiting.blocking_recv() {
            digest.update(&chunk);
            inspection.feed(&chunk);
        }
        (hex(&digest.finalize()), inspection)
    });
    let mut bytes = source.read(0..size).await?;
    let mut done = 0;
    loop {
        let chunk = tokio::select! {
            biased;
            () = attendance.stop().cancelled() => return Err(Attendance::stopped()),
            chunk = bytes.next() => chunk,
        };
        let Some(chunk) = chunk.transpose()? else { break };
        done += chunk.len() as u64;
        attendance.report(done, size);
        if chunks.send(chunk).await.is_err() {
            break;
        }
    }
    drop(chunks);
    let (found, inspection) = work.await.map_err(|error| {
        Fault::new(FaultClass::Retry, "IMPORT_STOPPED", "the check was interrupted; it is begun again", error)
    })?;
    if found != expected {
        let message = format!("the SHA-256 of the file is {found}, and {expected} was given; the file is kept");
        let fault = FileFault {
            check: "SHA256".to_owned(),
            file: String::new(),
            place: String::new(),
            expected: expected.to_owned(),
            found,
            message: message.clone(),
        };
        return Ok(Err(Failure { faults: vec![fault], ..failure(code::INVALID_ARGUMENT, SUM_MISMATCH, message) }));
    }
    Ok(inspection.finish().map(Box::new).map_err(|faults| refused(faults.faults, faults.more)))
}

/// The reason of a file with another sum: it can be imported yet, with the right one.
pub(crate) const SUM_MISMATCH: &str = "SUM_MISMATCH";

fn refused(faults: Vec<ImageFault>, more: usize) -> Failure {
    let mut message = faults.first().map(ToString::to_string).unwrap_or_default();
    let others = faults.len().saturating_sub(1) + more;
    if others > 0 {
        message = format!("{message}; and {others} more");
    }
    let faults = faults.into_iter().map(file_fault).collect();
    Failure { faults, ..failure(code::INVALID_ARGUMENT, "IMAGE_INVALID", message) }
}

fn file_fault(fault: ImageFault) -> FileFault {
    let message = fault.to_string();
    let ImageFault { check, file, place, expected, found, .. } = fault;
    let place = match place {
        Place::Offset(at) => at.to_string(),
        Place::Line { line, column } => format!("line {line}, column {column}"),
        Place::Nowhere => String::new(),
    };
    FileFault { check: check.to_string(), file, place, expected, found, message }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
