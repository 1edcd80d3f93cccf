//! The body of an answer, by whichever way it came.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::error::BoxError;
use crate::upstream::ResponseBody;

/// Of the pool itself, or through the layers of a `kube::Client`.
#[derive(Debug)]
pub enum AnswerBody {
    /// As the pool gave it.
    Pool(ResponseBody),
    /// Through the layers.
    Layered(kube::client::Body),
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Self::Pool(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
            Self::Layered(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Pool(body) => body.size_hint(),
            Self::Layered(body) => body.size_hint(),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Pool(body) => body.is_end_stream(),
            Self::Layered(body) => body.is_end_stream(),
        }
    }
}
