pub mod spiffe_id;
