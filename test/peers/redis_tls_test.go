package peers

import (
	"context"
	"crypto/tls"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"mailcutover/internal/platformtest"
)

func TestRedisTLSAndUsers(t *testing.T) {
	Need(t, "redis")
	ca, err := platformtest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	dir := tempDir(t, "tls")
	cert, key, caFile, err := ca.WriteFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	client, err := ca.Certificate("client")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		o       RedisOptions
		present bool // a client certificate
		user    string
		pass    string
		ok      bool
	}{
		{"password", RedisOptions{Password: "pw", CertFile: cert, KeyFile: key}, false, "", "pw", true},
		{"wrong password", RedisOptions{Password: "pw", CertFile: cert, KeyFile: key}, false, "", "no", false},
		{"user", RedisOptions{Password: "pw", CertFile: cert, KeyFile: key, ACL: []string{"user app on >a +@all ~*"}}, false, "app", "a", true},
		{"client certificate", RedisOptions{CertFile: cert, KeyFile: key, CAFile: caFile}, true, "", "", true},
		{"no client certificate", RedisOptions{CertFile: cert, KeyFile: key, CAFile: caFile}, false, "", "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := StartRedis(t, test.o)
			o, err := redis.ParseURL(r.URL())
			if err != nil {
				t.Fatal(err)
			}
			o.Username, o.Password, o.MaxRetries = test.user, test.pass, -1
			o.TLSConfig = &tls.Config{RootCAs: ca.Pool()}
			if test.present {
				o.TLSConfig.Certificates = []tls.Certificate{client}
			}
			c := redis.NewClient(o)
			defer c.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := c.Ping(ctx).Err(); (err == nil) != test.ok {
				t.Errorf("PING: %v, want success %v", err, test.ok)
			}
		})
	}
}
