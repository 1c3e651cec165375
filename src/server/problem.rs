//! Problem documents: the JSON body of error responses.

use std::borrow::Cow;

use hyper::StatusCode;
use serde_json::{Map, Value, json};

use super::rules::UploadRefusal;

/// The problem document of an error response. Clients identify the error by the slug at the end of `type`.
#[derive(Clone, Debug)]
pub(super) struct ProblemDetails {
    pub(super) status: StatusCode,
    slug: Cow<'static, str>,
    title: &'static str,
    name: Option<&'static str>,
    detail: Option<String>,
    range: Option<(u64, u64)>,
}

impl ProblemDetails {
    pub(super) fn new(
        status: StatusCode,
        slug: impl Into<Cow<'static, str>>,
        title: &'static str,
    ) -> ProblemDetails {
        ProblemDetails { status, slug: slug.into(), title, name: None, detail: None, range: None }
    }

    pub(super) fn bad_request(slug: &'static str, title: &'static str) -> ProblemDetails {
        ProblemDetails::new(StatusCode::BAD_REQUEST, slug, title)
    }

    pub(super) fn unauthorized(slug: &'static str, title: &'static str) -> ProblemDetails {
        ProblemDetails::new(StatusCode::UNAUTHORIZED, slug, title)
    }

    pub(super) fn not_found(name: &'static str) -> ProblemDetails {
        let title = "The requested resource was not found.";
        ProblemDetails::new(StatusCode::NOT_FOUND, "resource-not-found", title).named(name)
    }

    pub(super) fn server_error(detail: impl ToString) -> ProblemDetails {
        let title = "The server could not do what was asked.";
        ProblemDetails::new(StatusCode::INTERNAL_SERVER_ERROR, "server-error", title).detail(detail)
    }

    pub(super) fn named(mut self, name: &'static str) -> ProblemDetails {
        self.name = Some(name);
        self
    }

    pub(super) fn detail(mut self, detail: impl ToString) -> ProblemDetails {
        self.detail = Some(detail.to_string());
        self
    }

    pub(super) fn range(mut self, min: u64, max: u64) -> ProblemDetails {
        self.range = Some((min, max));
        self
    }

    pub(super) fn json(&self) -> Value {
        let mut body = Map::new();
        body.insert("type".into(), format!("https://docs.api.video/reference/{}", self.slug).into());
        body.insert("title".into(), self.title.into());
        if let Some(name) = self.name {
            body.insert("name".into(), name.into());
        }
        body.insert("status".into(), self.status.as_u16().into());
        if let Some(detail) = &self.detail {
            body.insert("detail".into(), (**detail).into());
        }
        if let Some((min, max)) = self.range {
            body.insert("range".into(), json!({"min": min, "max": max}));
        }
        Value::Object(body)
    }
}

impl From<UploadRefusal> for ProblemDetails {
    fn from(refusal: UploadRefusal) -> ProblemDetails {
        let problem = ProblemDetails::bad_request(refusal.slug(), refusal.title()).named(refusal.name());
        match refusal.detail() {
            Some(detail) => problem.detail(detail),
            None => problem,
        }
    }
}
