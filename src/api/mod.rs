//! api.video's JSON endpoints.
