package config

import (
	"time"

	"mailcutover/rollback/hook"
)

// Default returns the settings of a file that sets none. It lacks what has no default:
// node, listeners, platforms and routing.postmaster.
func Default() *Config {
	return &Config{
		Installation: "mailcutover",
		Data:         "/var/lib/mailcutover",
		Approval:     ApprovalRequired,
		Approvals:    1,
		ApprovalLife: 24 * time.Hour,
		Lease:        Lease{Settled: 15 * time.Minute, Armed: 10 * time.Second, Margin: 2 * time.Second, SettleAfter: 4 * time.Hour},
		Logins: Logins{
			Wait: 10 * time.Second, Waiters: 10_000, Spread: 20 * time.Second, Suspend: 30 * time.Second,
			Failures:         Failures{Delay: time.Second, MaxDelay: 15 * time.Second, PerName: 20, PerNet: 100, Window: 10 * time.Minute},
			MasterSeparators: "*%",
			Autoconfig:       Autoconfig{Connections: 1000, Requests: 60},
		},
		Routing: Routing{Separator: "+", HopLimit: 50, OwnLimit: 4},
		Spool: Spool{
			Bytes: 20 << 30, Messages: 2_000_000,
			Retry: Retry{First: time.Minute, Max: time.Hour, Life: 5 * 24 * time.Hour, Patience: 5 * time.Minute},
		},
		Notices:    Notices{OriginalBytes: 50 << 10},
		Ledger:     Ledger{MaxAge: 90 * 24 * time.Hour, Bytes: 20 << 30},
		Retained:   defaultRetained(),
		Recall:     defaultRecall(),
		Verify:     defaultComparing(),
		Plan:       defaultPlanning(),
		Operations: Operations{MoverExpected: time.Hour, CanaryWait: DefaultCanaryWait, CanaryEvery: DefaultCanaryEvery, CanaryFailures: 2, CanaryReact: CanaryAlarm},
		Identity:   defaultIdentity(),
		Audit:      defaultAudit(),
		Admin:      Admin{Address: "127.0.0.1:8025", SignOn: SignOn{OIDC: OIDC{Label: "your account", Claim: "sub"}}},
		Log:        Log{Level: LevelInfo, Format: FormatJSON},
	}
}

// DefaultListener returns the settings of a listener that sets none. ID and Address have
// no default.
func DefaultListener() Listener {
	return Listener{
		Protocol:     ProtocolSMTP,
		Origin:       OriginOutside,
		TLS:          ListenerTLS{Mode: ListenerTLSNone},
		BareLineEnds: BareRepair,
		Limits: ListenerLimits{
			CommandBytes:          4 << 10,
			Recipients:            1000,
			Errors:                20,
			Refusals:              100,
			Idles:                 100,
			MessageBytes:          100 << 20,
			Connections:           10_000,
			ConnectionsPerAddress: 1_000,
			Idle:                  5 * time.Minute,
			Read:                  3 * time.Minute,
			Write:                 time.Minute,
			Handshake:             10 * time.Second,
			DataRate:              500,
			DataGrace:             30 * time.Second,
		},
	}
}

// DefaultPlatform returns the settings of a platform that sets none. ID and the hosts
// have no default.
func DefaultPlatform() Platform {
	return Platform{ConnectionLimit: 10 * time.Minute, Outside: DefaultEndpoint()}
}

// DefaultEndpoint returns the settings of an endpoint that sets none.
func DefaultEndpoint() Endpoint {
	return Endpoint{
		Protocol:       ProtocolSMTP,
		TLS:            EndpointTLS{Policy: TLSOpportunistic},
		Auth:           Auth{Mechanism: MechanismNone},
		ClientIdentity: IdentityNone,
		Limits: EndpointLimits{
			Connections: 20,
			MaxMessages: 1000,
			QueueWait:   30 * time.Second,
			MaxPause:    2 * time.Second,
			Backoff:     time.Second,
			BackoffMax:  30 * time.Second,
		},
		Timeouts: Timeouts{
			Dial:           30 * time.Second,
			Greeting:       5 * time.Minute,
			Command:        5 * time.Minute,
			Mail:           5 * time.Minute,
			Rcpt:           5 * time.Minute,
			Data:           2 * time.Minute,
			Block:          3 * time.Minute,
			Dot:            10 * time.Minute,
			Reset:          2 * time.Second,
			Unacknowledged: 30 * time.Second,
		},
	}
}

// DefaultLoginListener returns the settings of a listener for logins that sets none. ID,
// Protocol and Address have no default.
func DefaultLoginListener() LoginListener {
	return LoginListener{
		TLS: LoginListenerTLS{Mode: ListenerTLSStartTLS, Required: true},
		Limits: LoginListenerLimits{
			Connections:           20_000,
			ConnectionsPerAddress: 1_000,
			Login:                 2 * time.Minute,
			Write:                 time.Minute,
			Handshake:             10 * time.Second,
			LineBytes:             8 << 10,
			TokenBytes:            16 << 10,
			Errors:                10,
		},
	}
}

// DefaultLoginEndpoint returns the settings of an endpoint for logins that sets none. The hosts
// have no default.
func DefaultLoginEndpoint() LoginEndpoint {
	return LoginEndpoint{
		TLS:            LoginTLS{Policy: LoginTLSVerified},
		Auth:           LoginAuth{Mode: AuthPass},
		ClientIdentity: LoginIdentityNone,
		Timeouts:       LoginTimeouts{Dial: 5 * time.Second, Greeting: 15 * time.Second, Command: 15 * time.Second, Login: 30 * time.Second},
	}
}

// DefaultHook returns the settings of a hook that sets none. It needs a command or a URL.
func DefaultHook() Hook {
	return Hook{Timeout: hook.DefaultTimeout, Attempts: hook.DefaultAttempts, Pause: hook.DefaultPause}
}

// DefaultRedis returns the settings of a Redis table that sets none. URL has no default.
func DefaultRedis() Redis { return Redis{Timeout: 250 * time.Millisecond} }

// The decoder begins each item of a list, and each section that may be missing, with
// its defaults.
func (l *Listener) setDefaults() { *l = DefaultListener() }
func (p *Platform) setDefaults() { *p = DefaultPlatform() }
func (r *Redis) setDefaults()    { *r = DefaultRedis() }
func (h *Hook) setDefaults()     { *h = DefaultHook() }

func (l *LoginListener) setDefaults() { *l = DefaultLoginListener() }
func (e *LoginEndpoint) setDefaults() { *e = DefaultLoginEndpoint() }
