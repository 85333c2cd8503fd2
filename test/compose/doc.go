// Package compose has no code, only the test that docker-compose.yml starts the same
// programs, from the same configurations, as the tests with real peers do, and that its
// services find each other.
package compose
