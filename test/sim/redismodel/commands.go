package redismodel

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// command is how a command is called and what it does. arity is as Redis counts it: the
// name is one of the words, and a negative one is the least.
type command struct {
	arity    int
	write    bool
	noScript bool
	run      func(*call) any
}

// commands are all that the model knows.
var commands map[string]command

func init() {
	commands = map[string]command{
		"PING":   {-1, false, false, func(c *call) any { return status("PONG") }},
		"ECHO":   {2, false, false, func(c *call) any { return c.args[1] }},
		"HELLO":  {-1, false, true, cmdHello},
		"AUTH":   {-2, false, true, cmdAuth},
		"SELECT": {2, false, true, func(c *call) any { return ok }},
		"CLIENT": {-2, false, true, func(c *call) any { return ok }},
		"QUIT":   {-1, false, true, func(c *call) any { return closing{ok} }},
		"TIME":   {1, false, false, cmdTime},
		"INFO":   {-1, false, false, cmdInfo},
		"ROLE":   {1, false, false, func(c *call) any { return c.role() }},
		"WAIT":   {3, false, true, cmdWait},
		"CONFIG": {-2, false, true, func(c *call) any { return pairs{} }},

		"MULTI":   {1, false, true, cmdMulti},
		"EXEC":    {1, false, true, cmdExec},
		"DISCARD": {1, false, true, cmdDiscard},

		"EVAL":    {-3, false, true, cmdEval},
		"EVALSHA": {-3, false, true, cmdEvalSHA},
		"SCRIPT":  {-2, false, true, cmdScript},

		"TYPE":      {2, false, false, func(c *call) any { return status(c.get(c.args[1]).kind()) }},
		"EXISTS":    {-2, false, false, cmdExists},
		"DEL":       {-2, true, false, cmdDel},
		"UNLINK":    {-2, true, false, cmdDel},
		"EXPIRE":    {-3, true, false, func(c *call) any { return c.expire(time.Second) }},
		"PEXPIRE":   {-3, true, false, func(c *call) any { return c.expire(time.Millisecond) }},
		"PEXPIREAT": {-3, true, false, cmdPExpireAt},
		"PERSIST":   {2, true, false, cmdPersist},
		"TTL":       {2, false, false, func(c *call) any { return c.ttl(time.Second) }},
		"PTTL":      {2, false, false, func(c *call) any { return c.ttl(time.Millisecond) }},
		"FLUSHALL":  {-1, true, false, cmdFlush},
		"FLUSHDB":   {-1, true, false, cmdFlush},
		"DBSIZE":    {1, false, false, func(c *call) any { return int64(len(c.data)) }},
		"KEYS":      {2, false, false, cmdKeys},

		"GET":      {2, false, false, cmdGet},
		"SET":      {-3, true, false, cmdSet},
		"STRLEN":   {2, false, false, cmdStrLen},
		"SETRANGE": {4, true, false, cmdSetRange},
		"GETRANGE": {4, false, false, cmdGetRange},
		"INCR":     {2, true, false, cmdIncr},

		"HGET":    {3, false, false, cmdHGet},
		"HMGET":   {-3, false, false, cmdHMGet},
		"HSET":    {-4, true, false, cmdHSet},
		"HSETNX":  {4, true, false, cmdHSetNX},
		"HDEL":    {-3, true, false, cmdHDel},
		"HEXISTS": {3, false, false, cmdHExists},
		"HLEN":    {2, false, false, cmdHLen},
		"HSTRLEN": {3, false, false, cmdHStrLen},
		"HGETALL": {2, false, false, func(c *call) any { return c.all(true, true) }},
		"HKEYS":   {2, false, false, func(c *call) any { return c.all(true, false) }},
		"HVALS":   {2, false, false, func(c *call) any { return c.all(false, true) }},
		"HSCAN":   {-3, false, false, cmdHScan},
		"HINCRBY": {4, true, false, cmdHIncrBy},

		"RPUSH":  {-3, true, false, cmdRPush},
		"LPUSH":  {-3, true, false, cmdLPush},
		"RPOP":   {2, true, false, cmdRPop},
		"LPOP":   {2, true, false, cmdLPop},
		"LLEN":   {2, false, false, cmdLLen},
		"LRANGE": {4, false, false, cmdLRange},
		"LTRIM":  {4, true, false, cmdLTrim},
		"LINDEX": {3, false, false, cmdLIndex},

		"XADD":      {-5, true, false, cmdXAdd},
		"XLEN":      {2, false, false, cmdXLen},
		"XRANGE":    {-4, false, false, cmdXRange},
		"XREVRANGE": {-4, false, false, cmdXRevRange},
		"XREAD":     {-4, false, false, cmdXRead},
		"XINFO":     {-2, false, false, cmdXInfo},
		"XTRIM":     {-4, true, false, cmdXTrim},
	}
}

func cmdHello(c *call) any {
	version := c.session.version
	args := c.args[1:]
	if len(args) > 0 {
		switch args[0] {
		case "2", "3":
			version = int(args[0][0] - '0')
		default:
			return failure("NOPROTO unsupported protocol version")
		}
		args = args[1:]
	}
	for len(args) > 0 {
		switch word := strings.ToUpper(args[0]); {
		case word == "AUTH" && len(args) >= 3:
			if f := c.session.login(args[1], args[2]); f != "" {
				return f
			}
			args = args[3:]
		case word == "SETNAME" && len(args) >= 2:
			args = args[2:]
		default:
			return failure("ERR Syntax error in HELLO option '" + args[0] + "'")
		}
	}
	if !c.session.known {
		return failure("NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time")
	}
	c.session.version = version
	role := "master"
	if c.primary != nil {
		role = "replica"
	}
	return pairs{"server", "redis", "version", "7.0.15", "proto", int64(version), "id", int64(c.session.serial),
		"mode", "standalone", "role", role, "modules", []any{}}
}

func (c *Session) login(user, password string) failure {
	if user != "default" || password != c.server.o.Password && c.server.o.Password != "" {
		return "WRONGPASS invalid username-password pair or user is disabled."
	}
	c.known = true
	return ""
}

func cmdAuth(c *call) any {
	user := "default"
	if len(c.args) == 3 {
		user = c.args[1]
	} else if c.o.Password == "" {
		return failure("ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?")
	}
	if f := c.session.login(user, c.args[len(c.args)-1]); f != "" {
		return f
	}
	return ok
}

func cmdTime(c *call) any {
	now := c.now()
	return []any{strconv.FormatInt(now.Unix(), 10), strconv.Itoa(now.Nanosecond() / 1000)}
}

func cmdInfo(c *call) any {
	var b strings.Builder
	section := "all"
	if len(c.args) > 1 {
		section = strings.ToLower(c.args[1])
	}
	everything := section == "all" || section == "default" || section == "everything"
	if everything || section == "server" {
		fmt.Fprintf(&b, "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\nprocess_id:1\r\nrun_id:%s\r\ntcp_port:6379\r\n", c.runID)
	}
	if everything || section == "replication" {
		if b.Len() > 0 {
			b.WriteString("\r\n")
		}
		if c.primary != nil {
			fmt.Fprintf(&b, "# Replication\r\nrole:slave\r\nmaster_host:%s\r\nmaster_link_status:up\r\n", c.primary.From.o.Name)
		} else {
			b.WriteString("# Replication\r\nrole:master\r\n")
		}
		fmt.Fprintf(&b, "connected_slaves:%d\r\n", len(c.links))
		if c.o.MinReplicas > 0 {
			fmt.Fprintf(&b, "min_slaves_good_slaves:%d\r\n", c.good())
		}
		fmt.Fprintf(&b, "master_failover_state:no-failover\r\nmaster_replid:%s\r\nmaster_replid2:%s\r\nmaster_repl_offset:%d\r\nsecond_repl_offset:-1\r\n", c.replID, c.replID2, c.offset)
	}
	if c.script {
		return b.String()
	}
	return verbatim(b.String())
}

func cmdWait(c *call) any {
	n, err := strconv.ParseInt(c.args[1], 10, 64)
	timeout, err2 := strconv.ParseInt(c.args[2], 10, 64)
	if err != nil || err2 != nil {
		return notInteger
	}
	if c.primary != nil {
		return failure("ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a replica is configured to be writable (which is not the default) writes to replicas are just local and are not propagated.")
	}
	w := &waitingCount{replicas: n, offset: c.session.wrote}
	if have := c.acknowledged(w.offset); have >= n || c.nested {
		return have
	}
	for _, l := range c.links {
		l.acknowledge() // as on REPLCONF GETACK
	}
	if timeout > 0 {
		c.session.stop = c.o.After(time.Duration(timeout)*time.Millisecond, c.session.timeout)
	}
	return w
}

func cmdMulti(c *call) any {
	if c.session.multi {
		return failure("ERR MULTI calls can not be nested")
	}
	c.session.multi, c.session.dirty, c.session.queue = true, false, nil
	return ok
}

func cmdDiscard(c *call) any {
	if !c.session.multi {
		return failure("ERR DISCARD without MULTI")
	}
	c.session.multi, c.session.queue = false, nil
	return ok
}

func cmdExec(c *call) any {
	if !c.session.multi {
		return failure("ERR EXEC without MULTI")
	}
	queue := c.session.queue
	c.session.multi, c.session.queue = false, nil
	if c.session.dirty {
		return failure("EXECABORT Transaction discarded because of previous errors.")
	}
	answers := make([]any, len(queue))
	for i, args := range queue {
		answers[i] = c.do(&call{Server: c.Server, session: c.session, args: args, nested: true})
	}
	return answers
}

func cmdExists(c *call) any {
	n := int64(0)
	for _, key := range c.args[1:] {
		if c.get(key) != nil {
			n++
		}
	}
	return n
}

func cmdDel(c *call) any {
	n := int64(0)
	for _, key := range c.args[1:] {
		if c.get(key) != nil {
			delete(c.data, key)
			n++
		}
	}
	if n > 0 {
		c.wrote(c.args...)
	}
	return n
}

func cmdFlush(c *call) any {
	clear(c.data)
	c.wrote("FLUSHALL")
	return ok
}

func cmdKeys(c *call) any {
	var keys []string
	for key := range c.data {
		if match, _ := path.Match(c.args[1], key); match && c.get(key) != nil {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	list := []any{}
	for _, k := range keys {
		list = append(list, k)
	}
	return list
}

func (c *call) expire(unit time.Duration) any {
	n, err := strconv.ParseInt(c.args[2], 10, 64)
	if err != nil {
		return notInteger
	}
	return c.expireAt(c.now().Add(time.Duration(n) * unit))
}

func cmdPExpireAt(c *call) any {
	n, err := strconv.ParseInt(c.args[2], 10, 64)
	if err != nil {
		return notInteger
	}
	return c.expireAt(time.UnixMilli(n))
}

func (c *call) expireAt(at time.Time) any {
	v := c.get(c.args[1])
	if v == nil {
		return int64(0)
	}
	v.expires = at
	c.wrote("PEXPIREAT", c.args[1], strconv.FormatInt(at.UnixMilli(), 10))
	return int64(1)
}

func cmdPersist(c *call) any {
	v := c.get(c.args[1])
	if v == nil || v.expires.IsZero() {
		return int64(0)
	}
	v.expires = time.Time{}
	c.wrote(c.args...)
	return int64(1)
}

func (c *call) ttl(unit time.Duration) any {
	v := c.get(c.args[1])
	switch {
	case v == nil:
		return int64(-2)
	case v.expires.IsZero():
		return int64(-1)
	}
	return int64(v.expires.Sub(c.now()).Round(unit) / unit)
}

func cmdGet(c *call) any {
	text, there, err := c.textAt(c.args[1])
	if err != nil {
		return err
	}
	if !there {
		return nil
	}
	return text
}

func cmdSet(c *call) any {
	key, text := c.args[1], c.args[2]
	v := &value{text: &text}
	for args := c.args[3:]; len(args) > 0; args = args[1:] {
		switch word := strings.ToUpper(args[0]); {
		case word == "NX":
			if c.get(key) != nil {
				return nil
			}
		case word == "XX":
			if c.get(key) == nil {
				return nil
			}
		case (word == "EX" || word == "PX") && len(args) > 1:
			n, err := strconv.ParseInt(args[1], 10, 64)
			if err != nil {
				return notInteger
			}
			unit := time.Second
			if word == "PX" {
				unit = time.Millisecond
			}
			v.expires = c.now().Add(time.Duration(n) * unit)
			args = args[1:]
		default:
			return syntaxError
		}
	}
	c.data[key] = v
	c.wrote("SET", key, text)
	if !v.expires.IsZero() {
		c.wrote("PEXPIREAT", key, strconv.FormatInt(v.expires.UnixMilli(), 10))
	}
	return ok
}

func cmdStrLen(c *call) any {
	text, _, err := c.textAt(c.args[1])
	return or(err, int64(len(text)))
}

func cmdSetRange(c *call) any {
	at, err := strconv.Atoi(c.args[2])
	if err != nil {
		return notInteger
	}
	if at < 0 {
		return failure("ERR offset is out of range")
	}
	text, _, err := c.textAt(c.args[1])
	if err != nil {
		return err
	}
	put := c.args[3]
	if put == "" {
		return int64(len(text))
	}
	b := []byte(text)
	for len(b) < at+len(put) {
		b = append(b, 0)
	}
	copy(b[at:], put)
	text = string(b)
	if v := c.get(c.args[1]); v != nil {
		v.text = &text
	} else {
		c.data[c.args[1]] = &value{text: &text}
	}
	c.wrote(c.args...)
	return int64(len(text))
}

func cmdGetRange(c *call) any {
	from, err := strconv.Atoi(c.args[2])
	to, err2 := strconv.Atoi(c.args[3])
	if err != nil || err2 != nil {
		return notInteger
	}
	text, _, err := c.textAt(c.args[1])
	if err != nil {
		return err
	}
	n := len(text)
	if from < 0 {
		from = max(0, n+from)
	}
	if to < 0 {
		to = n + to
	}
	to = min(to, n-1)
	if from > to {
		return ""
	}
	return text[from : to+1]
}

func cmdIncr(c *call) any {
	text, there, err := c.textAt(c.args[1])
	if err != nil {
		return err
	}
	n := int64(0)
	if there {
		if n, err = strconv.ParseInt(text, 10, 64); err != nil {
			return notInteger
		}
	}
	n++
	text = strconv.FormatInt(n, 10)
	if v := c.get(c.args[1]); v != nil {
		v.text = &text
	} else {
		c.data[c.args[1]] = &value{text: &text}
	}
	c.wrote(c.args...)
	return n
}
