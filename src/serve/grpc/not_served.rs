//! Services that this version has the contract of, and not the implementation: each call says so.

use tonic::{Request, Response, Status};

use super::ask::not_served;
use crate::pb::mayfly::v1 as pb;
use crate::pb::mayfly::v1::break_glass_service_server::BreakGlassService;

/// Break-glass.
pub struct NotServed;

#[tonic::async_trait]
impl BreakGlassService for NotServed {
    async fn open_break_glass(
        &self,
        _: Request<pb::OpenBreakGlassRequest>,
    ) -> Result<Response<pb::OpenBreakGlassResponse>, Status> {
        not_served("OpenBreakGlass")
    }

    async fn close_break_glass(
        &self,
        _: Request<pb::CloseBreakGlassRequest>,
    ) -> Result<Response<pb::CloseBreakGlassResponse>, Status> {
        not_served("CloseBreakGlass")
    }

    async fn review_break_glass(
        &self,
        _: Request<pb::ReviewBreakGlassRequest>,
    ) -> Result<Response<pb::ReviewBreakGlassResponse>, Status> {
        not_served("ReviewBreakGlass")
    }

    async fn list_break_glass(
        &self,
        _: Request<pb::ListBreakGlassRequest>,
    ) -> Result<Response<pb::ListBreakGlassResponse>, Status> {
        not_served("ListBreakGlass")
    }
}
