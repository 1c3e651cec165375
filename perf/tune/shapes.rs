//! The links on which the search is run.

use crate::shaped_link::LinkShape;

/// A link with its name.
pub(super) struct NamedShape {
    pub(super) name: &'static str,
    pub(super) shape: LinkShape,
    /// The bottleneck of the link.
    pub(super) bottleneck: &'static str,
}

const fn link(name: &'static str, shape: LinkShape) -> NamedShape {
    NamedShape { name, shape, bottleneck: "link" }
}

/// Satellite, uneven and crowd were not used while the search was written.
pub(super) const SHAPES: &[NamedShape] = &[
    link("clean", LinkShape::plain(2, 40.0, 40.0)),
    link("thin", LinkShape::plain(30, 0.625, 0.625)),
    link("capped", LinkShape::plain(80, 4.0, 16.0)),
    NamedShape { name: "distant", shape: LinkShape::plain(80, 2.0, 1000.0), bottleneck: "connection" },
    link("bufferbloat", LinkShape { queue_ms: 1000, ..LinkShape::plain(20, 5.0, 5.0) }),
    link("lossy", LinkShape { stall_mib: 2.0, ..LinkShape::plain(40, 6.0, 20.0) }),
    link("rival", LinkShape { rivals: 4, ..LinkShape::plain(40, 24.0, 24.0) }),
    link("step", LinkShape { step_after_ms: 8000, step_factor: 0.5, ..LinkShape::plain(40, 4.0, 16.0) }),
    link("wireless", LinkShape { stall_mib: 4.0, queue_ms: 300, ..LinkShape::plain(25, 6.0, 9.0) }),
    NamedShape { name: "satellite", shape: LinkShape::plain(500, 0.5, 1000.0), bottleneck: "connection" },
    link("uneven", LinkShape::plain(15, 3.0, 10.0)),
    link("crowd", LinkShape { rivals: 2, ..LinkShape::plain(60, 1.5, 20.0) }),
    link("mobile", LinkShape { stall_mib: 1.5, rivals: 1, queue_ms: 400, ..LinkShape::plain(90, 3.0, 10.0) }),
];
