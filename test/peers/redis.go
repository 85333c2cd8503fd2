package peers

import (
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
)

// RedisOptions say how a Redis differs from configs/peers/redis.conf. The zero value is
// one on plain TCP that wants no password.
type RedisOptions struct {
	Password string            // of the default user; empty: none
	ACL      []string          // users as in redis.conf, such as "user app on >secret ~app:* +@all"
	CertFile string            // a server certificate (PEM) turns TLS on and plain TCP off
	KeyFile  string            // its key
	CAFile   string            // the CA of client certificates; empty: none asked for
	Settings map[string]string // further lines of redis.conf; they win
	Host     Host
}

// Redis is a redis-server. Its data survive Stop and Kill until the test ends.
type Redis struct {
	*Process
	Addr string // host and port
	Dir  string // the append-only file's directory
	o    RedisOptions
}

// StartRedis starts a redis-server.
func StartRedis(t TB, o RedisOptions) *Redis {
	t.Helper()
	Need(t, "redis")
	dir := tempDir(t, "redis")
	port := Port(t)
	conf := []string{
		// Of two lines for a setting the last one counts, but a dir must exist even so.
		strings.Replace(string(example(t, "redis.conf")), "\ndir /data\n", "\ndir "+dir+"\n", 1),
		"bind " + o.Host.Address(),
		"requirepass \"" + o.Password + "\"",
		"logfile \"\"",
	}
	conf = append(conf, o.listen(port)...)
	conf = append(conf, o.Host.unprotected()...)
	conf = append(conf, o.ACL...)
	for key, value := range o.Settings {
		conf = append(conf, key+" "+value)
	}
	file := filepath.Join(dir, "redis.conf")
	writeFile(t, file, []byte(strings.Join(conf, "\n")+"\n"))

	r := &Redis{Addr: fmt.Sprintf("%s:%d", o.Host.Address(), port), Dir: dir, o: o}
	// It listens, and refuses commands, before it has read what it had.
	r.Process = &Process{
		name: "redis-server", addr: r.Addr, says: "Ready to accept connections", out: &tail{max: logKept}, examples: []string{"redis.conf"},
		make: func() *exec.Cmd { return o.Host.Command("redis-server", file) },
	}
	r.own(t)
	return r
}

// listen returns the settings of a port, with TLS or without.
func (o *RedisOptions) listen(port int) []string {
	if o.CertFile == "" {
		return []string{fmt.Sprintf("port %d", port)}
	}
	conf := []string{"port 0", fmt.Sprintf("tls-port %d", port), "tls-cert-file " + o.CertFile, "tls-key-file " + o.KeyFile}
	if o.CAFile != "" {
		return append(conf, "tls-ca-cert-file "+o.CAFile, "tls-auth-clients yes")
	}
	return append(conf, "tls-ca-cert-file "+o.CertFile, "tls-auth-clients no")
}

// URL returns the address in the form that Redis clients take, with the default user's
// password and database 0.
func (r *Redis) URL() string {
	u := url.URL{Scheme: "redis", Host: r.Addr, Path: "/0"}
	if r.o.CertFile != "" {
		u.Scheme = "rediss"
	}
	if r.o.Password != "" {
		u.User = url.UserPassword("", r.o.Password)
	}
	return u.String()
}

// CLI runs a command by redis-cli as the default user and returns its output without the
// final line end. Not for a Redis with TLS.
func (r *Redis) CLI(t TB, args ...string) string {
	t.Helper()
	host, port, _ := strings.Cut(r.Addr, ":")
	base := []string{"-h", host, "-p", port, "--no-auth-warning"}
	if r.o.Password != "" {
		base = append(base, "-a", r.o.Password)
	}
	return strings.TrimRight(mustRun(t, "redis-cli", append(base, args...)...), "\n")
}
