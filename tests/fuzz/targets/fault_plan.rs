//! A fault plan is read, or refused with a reason.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringlift::server::FaultPlan;

fuzz_target!(|text: &str| {
    if let Err(error) = FaultPlan::parse(text) {
        assert!(error.to_string().len() > "the fault plan cannot be read: ".len());
    }
});
