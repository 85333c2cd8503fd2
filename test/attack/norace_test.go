//go:build !race

package attack

// raceEnabled says that the program is built with the race detector, as this test is.
const raceEnabled = false
