//! What a kubelet said, as far as it is shown.

use bytes::Bytes;

/// What is shown.
#[derive(Debug)]
pub(crate) enum Figures {
    /// Series.
    Text(Bytes),
    /// A summary.
    Json(Bytes),
    /// The kubelet is well.
    Well,
    /// It says that it is not.
    Unwell,
}

impl Figures {
    /// A copy that is not drawn on anybody's budget, when it is short.
    pub(super) fn kept_apart(self, longest: usize) -> Self {
        match self {
            Self::Text(bytes) if bytes.len() <= longest => Self::Text(Bytes::copy_from_slice(&bytes)),
            Self::Json(bytes) if bytes.len() <= longest => Self::Json(Bytes::copy_from_slice(&bytes)),
            other => other,
        }
    }

    /// Whether it is one.
    pub(super) fn is_kept_apart(&self, longest: usize) -> bool {
        match self {
            Self::Text(bytes) | Self::Json(bytes) => bytes.len() <= longest,
            Self::Well | Self::Unwell => true,
        }
    }
}
