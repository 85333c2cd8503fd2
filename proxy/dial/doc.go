// Package dial is the way to the hosts of a platform's endpoint, whatever is spoken there.
//
// A [Dialer] tries the hosts in turn and leaves those alone that failed, for a time that
// grows and that chance spreads ([Health]). [Harden] makes a socket what
// docs/architecture/switch.md, node rule 7, asks for. [TLS] is what an endpoint asks of the
// transport, and makes the settings of its handshakes; [AppendProxyV2] and [AppendXtext]
// write what a platform is told of a client.
//
// It promises that
//   - a host that failed gets one attempt at a time, after its back-off;
//   - the end of the caller's context is no failure of a host;
//   - credentials are allowed ([Dialer.MaySend]) only over TLS as the policy asks for, or to
//     this machine where the policy asks for none.
//
// It refuses plain text after a handshake that failed, TLS before 1.2 and without forward
// secrecy and an AEAD, and policies that contradict themselves ([TLS.Validate]).
//
// When no host may be dialled, [Dialer.Dial] says so at once, with why each failed and when the
// next attempt is due. Every dial and handshake has a deadline.
//
// It starts no goroutine. Its callers are proxy/relay, whose pools have their own turn and
// use its parts, proxy/login, and who tries endpoints: proxy/probe and internal/daemon.
package dial
