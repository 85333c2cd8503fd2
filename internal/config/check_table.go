package config

import (
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

func (c *checker) redis(r *Redis) {
	const key = "table.redis"
	const want = "redis://HOST:PORT/DB, rediss://HOST:PORT/DB or unix:///PATH"
	if r.Replicas > 100 {
		c.add(Problem{Key: key + ".replicas", Value: strconv.Itoa(r.Replicas), Want: "0 to 100"})
	}
	if r.Timeout < time.Millisecond || r.Timeout > 10*time.Second {
		c.add(Problem{Key: key + ".timeout", Value: shortDuration(r.Timeout), Want: "1ms to 10s", Hint: "mail of armed agencies waits that long when Redis doesn't answer"})
	}
	if r.Username != "" && !r.Password.IsSet() {
		c.add(Problem{Key: key + ".username", Value: show(r.Username), Want: "table.redis.password_file or password_env beside it"}, key+".password")
	}
	if r.AllowNoPassword && r.Password.IsSet() {
		c.add(Problem{Key: key + ".allow_no_password", Value: "true", Want: "false", Hint: "there is a password"}, key+".password")
	}
	if !r.Password.IsSet() && !r.AllowNoPassword {
		c.add(Problem{Key: key + ".password_file", Want: "the file with the password of Redis", Hint: "or password_env; a Redis without one needs allow_no_password: true"}, key+".password", key+".password_env", key+".allow_no_password")
	}
	c.sentinel(r)
	if c.missing(key+".url", r.URL, want) {
		return
	}
	u, err := url.Parse(r.URL)
	if err != nil {
		c.add(Problem{Key: key + ".url", Want: want}) // its text may hold a password
		return
	}
	if u.User != nil {
		c.add(Problem{Key: key + ".url", Want: want, Hint: "no user and password in it: there are username and password_file"})
		return
	}
	if u.RawQuery != "" || u.Fragment != "" {
		c.add(Problem{Key: key + ".url", Want: want, Hint: `nothing behind "?" or "#"`})
		return
	}
	tls := u.Scheme == "rediss"
	switch u.Scheme {
	case "redis", "rediss":
		db := strings.Trim(u.Path, "/")
		if n, err := strconv.Atoi(db); u.Hostname() == "" || u.Port() != "" && !isPort(u.Port(), false) || db != "" && (err != nil || n < 0) {
			c.add(Problem{Key: key + ".url", Value: show(r.URL), Want: want})
			return
		}
		if !tls && !isLoopback(u.Hostname()) && !r.AllowPlaintext {
			c.add(Problem{Key: key + ".url", Value: show(r.URL), Want: "rediss:// to another host", Hint: "the table would cross the network in plain text; allow_plaintext: true takes that risk"}, key+".allow_plaintext")
		}
	case "unix":
		if u.Host != "" || u.Path == "" {
			c.add(Problem{Key: key + ".url", Value: show(r.URL), Want: want})
		}
	default:
		c.add(Problem{Key: key + ".url", Value: show(r.URL), Want: want})
		return
	}
	if tls && r.AllowPlaintext {
		c.add(Problem{Key: key + ".allow_plaintext", Value: "true", Want: "false", Hint: "rediss:// is TLS"}, key+".url")
	}
	if !tls && r.TLS != (RedisTLS{}) {
		c.add(Problem{Key: key + ".tls", Want: "rediss:// in table.redis.url, or no tls", Hint: "redis:// and unix:// are without TLS"}, key+".url")
	}
	if r.TLS.CAFile != "" {
		c.roots(key+".tls.ca_file", r.TLS.CAFile)
	}
	if r.TLS.CertFile != "" || r.TLS.KeyFile != "" {
		c.keyPair(key+".tls", r.TLS.CertFile, r.TLS.KeyFile)
	}
}

// sentinel checks where the Sentinels are, if there are any.
func (c *checker) sentinel(r *Redis) {
	const key = "table.redis.sentinel"
	s := &r.Sentinel
	if len(s.Addresses) == 0 {
		if s.Master != "" || s.Username != "" || s.Password.IsSet() {
			c.add(Problem{Key: key + ".addresses", Want: "host:port of each Sentinel", Hint: "or no sentinel at all"}, key+".master", key+".username", key+".password")
		}
		return
	}
	c.missing(key+".master", s.Master, "the primary's name, as the Sentinels have it")
	for i, a := range s.Addresses {
		host, port, err := net.SplitHostPort(a)
		if err != nil || host == "" || !isPort(port, false) {
			c.add(Problem{Key: key + ".addresses", Value: show(a), Want: "host:port, such as redis1.example.org:26379"})
		} else if slices.Contains(s.Addresses[:i], a) {
			c.add(Problem{Key: key + ".addresses", Value: show(a), Want: "each Sentinel once"})
		} else if strings.HasPrefix(r.URL, "redis:") && !isLoopback(host) && !r.AllowPlaintext {
			c.add(Problem{Key: key + ".addresses", Value: show(a), Want: "rediss:// in table.redis.url", Hint: "Sentinels of other hosts would be asked in plain text; allow_plaintext: true takes that risk"}, "table.redis.allow_plaintext", "table.redis.url")
		}
	}
	if s.Username != "" && !s.Password.IsSet() {
		c.add(Problem{Key: key + ".username", Value: show(s.Username), Want: key + ".password_file or password_env beside it"}, key+".password")
	}
	if strings.HasPrefix(r.URL, "unix:") {
		c.add(Problem{Key: key, Want: "redis:// or rediss:// in table.redis.url", Hint: "the Sentinels name hosts and ports"}, "table.redis.url")
	}
}
