package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailcutover/identity/ldapdir"
	"mailcutover/identity/list"
)

// identity checks the directories, and what is made of them.
func (c *checker) identity(cfg *Config) {
	i := &cfg.Identity
	if i.CheckAge <= 0 {
		c.add(Problem{Key: "identity.check_age", Value: shortDuration(i.CheckAge), Want: "more than 0"})
	}
	if i.CheckEvery <= 0 || i.CheckEvery > i.CheckAge {
		c.add(Problem{Key: "identity.check_every", Value: shortDuration(i.CheckEvery), Want: "more than 0, and not more than identity.check_age, " + shortDuration(i.CheckAge)}, "identity.check_age")
	}
	if i.ListRows < 1 || i.ListRows > list.MaxRows {
		c.add(Problem{Key: "identity.list_rows", Value: strconv.Itoa(i.ListRows), Want: "1 to " + strconv.Itoa(list.MaxRows)})
	}
	if p := i.Additions.MostPercent; p > 100 {
		c.add(Problem{Key: "identity.additions.most_percent", Value: strconv.Itoa(p), Want: "0 to 100"})
	}
	if i.Unknown.MaxRate < 1 {
		c.add(Problem{Key: "identity.unknown.max_rate", Value: strconv.Itoa(i.Unknown.MaxRate), Want: "1 or more"})
	}
	if i.Unknown.SnapshotAge <= 0 {
		c.add(Problem{Key: "identity.unknown.snapshot_age", Value: shortDuration(i.Unknown.SnapshotAge), Want: "more than 0"})
	}
	c.directories(i)
	c.model(cfg)
}

func (c *checker) directories(i *Identity) {
	names, sources, targets := make([]string, len(i.Directories)), 0, 0
	for n, d := range i.Directories {
		names[n] = d.Name
	}
	for n := range i.Directories {
		d, key := &i.Directories[n], itemKey("identity.directories", names, n)
		if c.bad[key] {
			continue
		}
		c.id(key+".name", names, n, "directory")
		switch d.Role {
		case DirectorySource:
			sources++
		case DirectoryTarget:
			targets++
		}
		c.directory(key, d)
	}
	switch {
	case !i.Configured():
		if i.Key.IsSet() || len(i.Agencies) > 0 {
			c.add(Problem{Key: "identity.directories", Want: "the directory that says whose mailbox is whose", Hint: "the other settings of identity do nothing without it"})
		}
		return
	case sources != 1 || targets > 1:
		c.add(Problem{Key: "identity.directories", Value: fmt.Sprintf("%d with the role source, %d with target", sources, targets), Want: "one source, and one target or none"})
	}
	if !c.missing("identity.key", i.Key.Reveal(), "key_file or key_env: a secret that all nodes share, for the digests of lists") && len(i.Key.Reveal()) < list.MinKeyBytes {
		c.add(Problem{Key: "identity.key", Want: strconv.Itoa(list.MinKeyBytes) + " characters at least", Hint: "such as openssl rand -base64 32 prints"})
	}
	if len(i.Agencies) == 0 {
		c.add(Problem{Key: "identity.agencies", Want: "which objects of the directories are which agency's", Hint: "it is missing, and there is no default"})
	}
}

// maxReplication bounds how long an agency is closed for a directory that doesn't show a forward.
const maxReplication = 15 * time.Minute

func (c *checker) directory(key string, d *Directory) {
	before := len(c.problems)
	if t := d.TLS; t.CertFile != "" || t.KeyFile != "" {
		c.keyPair(key+".tls", t.CertFile, t.KeyFile)
	}
	if d.TLS.CAFile != "" {
		c.roots(key+".tls.ca_file", d.TLS.CAFile)
	}
	if n := d.TLS.ServerName; n != "" && !isHostName(n) {
		c.add(Problem{Key: key + ".tls.server_name", Value: show(n), Want: "a host name"})
	}
	b := &d.Bind
	switch {
	case b.External && (b.DN != "" || b.Password.IsSet()):
		c.add(Problem{Key: key + ".bind.external", Value: "true", Want: "either external or dn with its password"})
	case b.External && d.TLS.CertFile == "":
		c.add(Problem{Key: key + ".bind.external", Value: "true", Want: "tls.cert_file and tls.key_file beside it"}, key+".tls.cert_file")
	case (b.DN == "") == b.Password.IsSet():
		c.add(Problem{Key: key + ".bind", Want: "dn and its password, or neither"}, key+".bind.password")
	}
	c.positive(key+".timeout", d.Timeout)
	if d.Replication > maxReplication {
		c.add(Problem{Key: key + ".replication", Value: shortDuration(d.Replication), Want: "0s to " + shortDuration(maxReplication), Hint: "the agency is closed for that long if forwards are not as they should be"})
	}
	if len(c.problems) > before {
		return // what follows would say it again, in other words
	}
	o, err := d.Options(nil)
	if err == nil {
		_, err = ldapdir.New(o)
	}
	if err != nil {
		c.add(Problem{Key: key, Want: "settings that a client can be made of", Hint: strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\n", "; "), "directory "+d.Name+": ")})
	}
}

// model checks what is made of a directory's objects.
func (c *checker) model(cfg *Config) {
	i, before := &cfg.Identity, len(c.problems)
	ids := make([]string, len(i.Agencies))
	for n, a := range i.Agencies {
		ids[n] = string(a.Agency)
	}
	for n, a := range i.Agencies {
		key := itemKey("identity.agencies", ids, n)
		c.id(key+".agency", ids, n, "item")
		if len(a.Bases)+len(a.Groups)+len(a.Values) == 0 {
			c.add(Problem{Key: key, Want: "bases, groups, or an attribute with its values"})
		}
		if (a.Attribute == "") != (len(a.Values) == 0) {
			c.add(Problem{Key: key + ".attribute", Value: show(a.Attribute), Want: "an attribute with its values, or neither"})
		}
	}
	platforms := platformIDs(cfg.Platforms)
	known := func(key, id string) {
		if !slices.Contains(platforms, id) {
			c.add(Problem{Key: key, Value: show(id), Want: "one of platforms: " + strings.Join(platforms, ", ")}, "platforms")
		}
	}
	ids = make([]string, len(i.Places))
	for n, p := range i.Places {
		ids[n] = string(p.Platform)
		key := itemKey("identity.places", ids, n)
		known(key+".platform", ids[n])
		if slices.Contains(ids[:n], ids[n]) {
			c.add(Problem{Key: key + ".platform", Value: show(ids[n]), Want: "each platform once"})
		}
	}
	ids = make([]string, len(i.Homes))
	for n, h := range i.Homes {
		ids[n] = string(h.Kind)
		key := itemKey("identity.homes", ids, n)
		known(key+".platform", string(h.Platform))
		if ids[n] != "" && slices.Contains(ids[:n], ids[n]) {
			c.add(Problem{Key: key + ".kind", Value: show(ids[n]), Want: "each kind once"})
		}
	}
	if len(c.problems) > before {
		return
	}
	if _, err := i.Model(); err != nil {
		c.add(Problem{Key: "identity", Want: "settings that agencies and rows can be made by", Hint: strings.ReplaceAll(err.Error(), "\n", "; ")})
	}
}
