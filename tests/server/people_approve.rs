//! Requirements of policy for people: a second factor, a recent login; and that two people are two.

use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::approval_service_client::ApprovalServiceClient;
use mayfly::pb::mayfly::v1::token_service_client::TokenServiceClient;
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::kit::reason;
use crate::people_rig::{Person, Rig, exchange, no_change, second_factor};
use crate::provider::seconds_now;

impl Rig {
    async fn export(&self) -> Result<pb::Issued, Status> {
        let channel = self.world.channel("agent/demo", self.running().addresses().workload).await.unwrap();
        let answer = TokenServiceClient::new(channel).exchange(exchange("echo:admin", "export")).await?;
        Ok(answer.into_inner().issued.unwrap())
    }

    pub async fn give(&self, who: &Person, id: &str) -> Result<pb::Approval, Status> {
        let mut approvals = ApprovalServiceClient::new(self.channel(who, false).await);
        let shown =
            approvals.get_approval(pb::GetApprovalRequest { approval_id: id.into() }).await?.into_inner().approval.unwrap();
        let request = pb::DecideApprovalRequest {
            approval_id: id.into(),
            request_sha256: shown.request_sha256,
            decision: pb::ApprovalDecision::Give.into(),
            reason: "as agreed".into(),
            ..Default::default()
        };
        Ok(approvals.decide_approval(request).await?.into_inner().approval.unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_can_demand_a_second_factor_and_that_it_was_of_late() {
    let rig = Rig::new();
    let id = rig.export().await.unwrap_err().get_error_details().error_info().unwrap().metadata["approval_id"].clone();
    let password = rig.sign_in("ada", no_change).await;
    let no = rig.give(&password, &id).await.unwrap_err();
    assert_eq!(reason(&no), "DENIED_BY_POLICY");
    assert!(no.message().contains("approving-takes-a-second-factor-of-late"), "{}", no.message());
    let way_out = no.get_error_details().error_info().unwrap().metadata["way_out"].clone();
    assert!(way_out.contains("approving-takes-a-second-factor-of-late") && way_out.contains("sign in again"), "{way_out}");
    let long_ago = rig.sign_in("ada", |c| {
        second_factor(c);
        c["auth_time"] = (seconds_now() - 16 * 60).into();
    });
    assert_eq!(reason(&rig.give(&long_ago.await, &id).await.unwrap_err()), "DENIED_BY_POLICY");
    let unsaid = rig.sign_in("ada", |c| {
        second_factor(c);
        c.as_object_mut().unwrap().remove("auth_time");
    });
    assert_eq!(reason(&rig.give(&unsaid.await, &id).await.unwrap_err()), "DENIED_BY_POLICY", "nobody says when");
    let stranger = rig.sign_in("carol", second_factor).await;
    assert_eq!(reason(&rig.give(&stranger, &id).await.unwrap_err()), "NOT_FOUND", "nobody named her");
    let ada = rig.sign_in("ada", second_factor).await;
    let given = rig.give(&ada, &id).await.unwrap();
    assert!(matches!(given.decided_by.unwrap().identity, Some(pb::identity::Identity::Person(p)) if p.sub == "ada"));
    rig.export().await.unwrap();

    // A registration may also name a person by the SPIFFE ID of the login.
    let id = rig.export().await.unwrap_err().get_error_details().error_info().unwrap().metadata["approval_id"].clone();
    let bob = rig.sign_in("bob", second_factor).await;
    rig.give(&bob, &id).await.unwrap();
    rig.export().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn exchanging_can_demand_a_second_factor_and_one_human_is_one_person() {
    let rig = Rig::new();
    let (weak, strong) = (rig.sign_in("ada", no_change).await, rig.sign_in("ada", second_factor).await);
    let no = rig.exchange(&weak, exchange("echo:write", "")).await.unwrap_err();
    assert_eq!(reason(&no), "DENIED_BY_POLICY");
    assert!(no.message().contains("writing-takes-a-second-factor"), "{}", no.message());
    rig.exchange(&strong, exchange("echo:write", "")).await.unwrap();
    // Ada requests with one login and would approve with another: the two logins are not two people.
    let ask = exchange("echo:admin", "export");
    let id = match rig.exchange(&weak, ask.clone()).await {
        Err(no) => no.get_error_details().error_info().unwrap().metadata.get("approval_id").cloned().unwrap_or_default(),
        Ok(_) => panic!("nobody approved it"),
    };
    let no = rig.give(&strong, &id).await.unwrap_err();
    assert_eq!(reason(&no), "NOT_YOURS", "{no:?}");
    let bob = rig.sign_in("bob", second_factor).await;
    rig.give(&bob, &id).await.unwrap();
    rig.exchange(&weak, ask).await.unwrap();
}
