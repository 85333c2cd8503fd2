//go:build !race

package smtp

// raceDetector says that this test binary looks for data races.
const raceDetector = false
