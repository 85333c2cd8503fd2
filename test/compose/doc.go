// Package compose has no code, only the tests that docker-compose.yml starts the same programs,
// from the same configurations, as the tests with real peers do, that its services find each
// other, and that they work together: as processes, with the commands, environments and mounted
// files that it names, through a list from the directory, a cutover with its sweep, a comparison
// of the mailboxes, a failover of Redis and a rollback with its recall.
package compose
