// Package systemd tells a service manager how a service of Type=notify is, by the protocol of
// sd_notify(3): datagrams to the socket that NOTIFY_SOCKET names.
//
// Without that variable nothing is told, and nothing is an error: the program runs the same
// under any other supervisor. What can't be told is an error that the caller logs; it never
// stops anything. A Notifier is safe for concurrent use; who makes one closes it.
package systemd
