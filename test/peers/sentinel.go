package peers

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// Sentinel is a redis-server that watches others.
type Sentinel struct {
	*Process
	Addr string // host and port
}

// SentinelName is the name under which Sentinels know the primary.
const SentinelName = "mailcutover"

// StartSentinels starts n Sentinels that watch primary and its replicas, find it gone
// after 3 s and want most of them to agree; with TLS, if primary has it. The password, if
// not empty, is their own. On a busy machine a process stands still for over half a
// second: with less than that one failover follows the other, and replicas never get one
// to follow. They run on these hosts in turn; without any on this one.
func StartSentinels(t TB, n int, primary *Redis, password string, hosts ...Host) []*Sentinel {
	t.Helper()
	Need(t, "redis")
	var all []*Sentinel
	for i := range n {
		var host Host
		if len(hosts) > 0 {
			host = hosts[i%len(hosts)]
		}
		all = append(all, startSentinel(t, n/2+1, primary, password, host))
	}
	return all
}

func startSentinel(t TB, quorum int, primary *Redis, password string, h Host) *Sentinel {
	t.Helper()
	dir := tempDir(t, "sentinel")
	port := Port(t)
	conf := []string{
		strings.Replace(string(example(t, "sentinel.conf")), "\ndir /data\n", "\ndir "+dir+"\n", 1),
		"bind " + h.Address(),
		"logfile \"\"",
	}
	conf = append(conf, h.unprotected()...)
	if conf = append(conf, primary.o.listen(port)...); primary.o.CertFile != "" {
		conf = append(conf, "tls-replication yes")
	}
	if password != "" {
		conf = append(conf, "requirepass "+password)
	}
	primaryHost, primaryPort, _ := strings.Cut(primary.Addr, ":")
	conf = append(conf, fmt.Sprintf("sentinel monitor %s %s %s %d", SentinelName, primaryHost, primaryPort, quorum))
	if primary.o.Password != "" {
		conf = append(conf, "sentinel auth-pass "+SentinelName+" "+primary.o.Password)
	}
	conf = append(conf, "sentinel down-after-milliseconds "+SentinelName+" 3000",
		"sentinel failover-timeout "+SentinelName+" 3000", "sentinel parallel-syncs "+SentinelName+" 1")
	file := filepath.Join(dir, "sentinel.conf") // Sentinel writes into it what it learns
	writeFile(t, file, []byte(strings.Join(conf, "\n")+"\n"))
	s := &Sentinel{Addr: fmt.Sprintf("%s:%d", h.Address(), port)}
	s.Process = startProcess(t, "redis-sentinel", s.Addr, func() *exec.Cmd {
		return h.Command("redis-server", file, "--sentinel")
	}, "sentinel.conf")
	return s
}

// StartReplica starts a replica of primary and waits until it has all that primary has.
func StartReplica(t TB, primary *Redis, o RedisOptions) *Redis {
	t.Helper()
	settings := map[string]string{"replicaof": strings.Replace(primary.Addr, ":", " ", 1), "repl-diskless-sync-delay": "0"}
	if primary.o.Password != "" {
		settings["masterauth"] = primary.o.Password
	}
	for key, value := range o.Settings {
		settings[key] = value
	}
	o.Settings = settings
	if o.Password == "" {
		o.Password = primary.o.Password
	}
	r := StartRedis(t, o)
	WaitFor(t, readyWithin, "replica", func() bool {
		return strings.Contains(r.CLI(t, "INFO", "replication"), "master_link_status:up")
	})
	return r
}
