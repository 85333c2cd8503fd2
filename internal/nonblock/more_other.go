//go:build unix && !linux

package nonblock

const more = 0
