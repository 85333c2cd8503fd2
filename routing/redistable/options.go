package redistable

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Defaults of [Options].
const (
	DefaultPrefix      = "{mc}"
	DefaultTimeout     = 250 * time.Millisecond
	DefaultBulkTimeout = 5 * time.Second
	DefaultLogLength   = 100_000
)

// Options of [Open]. Only URL, and a password, have to be set.
type Options struct {
	// URL is redis://HOST:PORT/DB, rediss:// for TLS, or unix:///PATH?db=DB; port 6379
	// and database 0 may be left out. A user and password may stand in it, but are
	// better given beside it.
	URL string

	// Username is the ACL user; empty means Redis' default user.
	Username string

	// Password is that user's; it is never logged and in no error.
	Password string

	// Sentinel, if it has addresses, finds the primary. Host and port of URL are a name
	// only then: with rediss://, the one in the servers' certificates.
	Sentinel Sentinel

	// TLS is for rediss:// URLs; the zero value trusts the system's CAs.
	TLS TLS

	// Prefix begins every key and contains a hash tag, so that all keys are in one slot;
	// empty means DefaultPrefix. Two tables in one Redis have different ones.
	Prefix string

	// Replicas is how many replicas must have a change before Confirm returns nil. It is
	// configured, not discovered: a replica that is away must not make the others enough.
	Replicas int

	// AllowPlaintext lets redis:// go to a host that isn't this one.
	AllowPlaintext bool

	// AllowNoPassword lets a URL do without a password.
	AllowNoPassword bool

	// Timeout bounds each call; 0 means DefaultTimeout.
	Timeout time.Duration

	// BulkTimeout bounds each round trip of calls that load or store much, and the wait
	// for replicas; 0 means DefaultBulkTimeout.
	BulkTimeout time.Duration

	// LogLength is the number of changes that the log keeps at least; 0 means
	// DefaultLogLength. All nodes should have the same.
	LogLength int

	// Dialer makes the connections instead of net.Dialer; its address is the URL's. For
	// rediss:// it does TLS itself. nil: the machine's network.
	Dialer func(ctx context.Context, network, address string) (net.Conn, error)

	// Logger gets a line if the table can't be reached when it is opened; nil: none.
	Logger *slog.Logger
}

// TLS says how to prove who the server is, and who we are. Files are PEM.
type TLS struct {
	CAFile     string // CAs to trust instead of the system's; empty: the system's
	ServerName string // name in the server's certificate; empty: the URL's host
	CertFile   string // our certificate, read again for each connection; empty: none
	KeyFile    string // its key
}

// complete fills in the defaults and says what is wrong, naming setting and value.
func (o *Options) complete() error {
	if o.Prefix == "" {
		o.Prefix = DefaultPrefix
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.BulkTimeout == 0 {
		o.BulkTimeout = max(DefaultBulkTimeout, o.Timeout)
	}
	if o.LogLength == 0 {
		o.LogLength = DefaultLogLength
	}
	_, tag, open := strings.Cut(o.Prefix, "{")
	tag, _, closed := strings.Cut(tag, "}")
	switch {
	case !open || !closed || tag == "" || strings.ContainsAny(o.Prefix, " *?[]\\\r\n"):
		return fmt.Errorf("table.redis.prefix %q: want a name with a hash tag, such as %s", o.Prefix, DefaultPrefix)
	case o.Replicas < 0:
		return fmt.Errorf("table.redis.replicas %d: want 0 or more", o.Replicas)
	case o.Timeout < time.Millisecond:
		return fmt.Errorf("table.redis.timeout %v: want at least 1ms", o.Timeout)
	case o.BulkTimeout < o.Timeout:
		return fmt.Errorf("table.redis.bulk_timeout %v: want at least table.redis.timeout, %v", o.BulkTimeout, o.Timeout)
	case o.LogLength < 100:
		return fmt.Errorf("table.redis.log_length %d: want at least 100", o.LogLength)
	case (o.TLS.CertFile == "") != (o.TLS.KeyFile == ""):
		return fmt.Errorf("table.redis.tls: certificate %q, key %q: want both or none", o.TLS.CertFile, o.TLS.KeyFile)
	}
	return nil
}

// client returns the settings that all connections share.
func (o *Options) client() (*redis.Options, error) {
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, errors.New("table.redis.url: not a URL (it isn't shown, it may hold a password)")
	}
	shown := u.Redacted()
	r := &redis.Options{
		Username: o.Username, Password: o.Password, Dialer: o.Dialer,
		ContextTimeoutEnabled: true,
		DialTimeout:           o.Timeout,
		DialerRetries:         1,
		PoolTimeout:           o.Timeout,
		ReadTimeout:           o.BulkTimeout, // each call's context is shorter where it has to be
		WriteTimeout:          o.BulkTimeout,
		PoolSize:              16,
		PipelinePoolSize:      -1,
		DisableIdentity:       true, // CLIENT SETINFO would need a right more
		MaintNotificationsConfig: &maintnotifications.Config{
			Mode: maintnotifications.ModeDisabled,
		},
	}
	if err := o.endpoint(u, r); err != nil {
		return nil, fmt.Errorf("table.redis.url %q: %w", shown, err)
	}
	if name := u.User.Username(); name != "" {
		if r.Username != "" && r.Username != name {
			return nil, fmt.Errorf("table.redis.url %q and table.redis.username %q name two users", shown, r.Username)
		}
		r.Username = name
	}
	if password, ok := u.User.Password(); ok {
		if r.Password != "" && r.Password != password {
			return nil, fmt.Errorf("table.redis.url %q and table.redis.password have two passwords", shown)
		}
		r.Password = password
	}
	if err := o.Sentinel.check(u.Scheme); err != nil {
		return nil, err
	}
	if r.Password == "" && !o.AllowNoPassword {
		return nil, fmt.Errorf("table.redis.url %q: no password: set table.redis.password_file, or table.redis.allow_no_password: true", shown)
	}
	if u.Scheme != "rediss" && o.TLS != (TLS{}) {
		return nil, fmt.Errorf("table.redis.url %q: table.redis.tls is set, but the URL isn't rediss://", shown)
	}
	return r, nil
}

// endpoint takes network, address, database and TLS from the URL.
func (o *Options) endpoint(u *url.URL, r *redis.Options) error {
	db := strings.TrimPrefix(u.Path, "/")
	switch u.Scheme {
	case "redis", "rediss":
		host, port := u.Hostname(), u.Port()
		if host == "" {
			return errors.New("it names no host")
		}
		if port == "" {
			port = "6379"
		}
		if u.RawQuery != "" {
			return fmt.Errorf("unknown %q: settings have keys of their own", u.RawQuery)
		}
		r.Network, r.Addr = "tcp", net.JoinHostPort(host, port)
		if u.Scheme == "rediss" {
			var err error
			if r.TLSConfig, err = o.TLS.config(host); err != nil {
				return err
			}
		} else if !loopback(host) && !o.AllowPlaintext {
			return errors.New("plain TCP to another host: use rediss://, or set table.redis.allow_plaintext: true")
		}
	case "unix":
		if u.Host != "" || u.Path == "" {
			return errors.New("want unix:///PATH")
		}
		q := u.Query()
		db = q.Get("db")
		if q.Del("db"); len(q) > 0 {
			return fmt.Errorf("unknown %q: only db may be given", u.RawQuery)
		}
		r.Network, r.Addr = "unix", u.Path
	default:
		return errors.New("want redis://, rediss:// or unix://")
	}
	if db != "" {
		n, err := strconv.ParseUint(db, 10, 31)
		if err != nil {
			return fmt.Errorf("database %q: want a number", db)
		}
		r.DB = int(n)
	}
	return nil
}

// loopback reports whether host is certainly this one. Other names aren't looked up:
// what they mean may change.
func loopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

func (t TLS) config(host string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if c.ServerName == "" {
		c.ServerName = host
	}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("table.redis.tls.ca_file: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("table.redis.tls.ca_file %s: no certificate in it", t.CAFile)
		}
	}
	if t.CertFile != "" {
		load := func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
			return &pair, err
		}
		if _, err := load(); err != nil {
			return nil, fmt.Errorf("table.redis.tls.cert_file %s, key_file %s: %w", t.CertFile, t.KeyFile, err)
		}
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	return c, nil
}

// LogClient sends what the Redis client library has to say about its connections to log,
// at level debug. The library has one log for the whole process, so this is called once,
// at the start of a program; without it such lines go to the standard error.
func LogClient(log *slog.Logger) { redis.SetLogger(clientLog{log}) }

type clientLog struct{ log *slog.Logger }

// Printf is what the library calls.
func (l clientLog) Printf(ctx context.Context, format string, v ...any) {
	l.log.DebugContext(ctx, "redis client", "reason", fmt.Sprintf(format, v...))
}
