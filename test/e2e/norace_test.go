//go:build !race

package e2e

// raceEnabled says that the program is built without the race detector, as this test is.
const raceEnabled = false
