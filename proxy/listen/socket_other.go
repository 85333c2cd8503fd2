//go:build !linux

package listen

import "net"

func listenConfig() *net.ListenConfig {
	return &net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: keepaliveIdle, Interval: keepaliveEvery, Count: keepaliveCount,
	}}
}
