package platformtest

import (
	"encoding/base64"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"
)

// command answers one line. It returns false if the connection is to end.
func (c *conn) command(line string, early bool) bool {
	text := strings.TrimSuffix(line, "\n")
	word, args, _ := strings.Cut(text, " ")
	verb := strings.ToUpper(word)
	plain := func(reply string) bool { return c.answer(verb, line, early, reply) }
	switch verb {
	case "HELO", "EHLO", "LHLO":
		return c.hello(verb, line, args, early)
	case "MAIL":
		return c.mail(line, args, early)
	case "RCPT":
		return c.rcpt(line, args, early)
	case "DATA":
		return c.data(line, early)
	case "BDAT":
		return c.bdat(line, args, early)
	case "RSET":
		cmd, r, reply := c.ask(verb, line, early, "250 2.0.0 Reset")
		if code(reply)/100 == 2 {
			c.abandon()
		}
		return c.send(cmd, r, reply)
	case "NOOP":
		return plain("250 2.0.0 OK")
	case "VRFY":
		return plain("252 2.1.5 Cannot VRFY user")
	case "HELP":
		return plain("214 2.0.0 See RFC 5321")
	case "QUIT":
		plain("221 2.0.0 Closing transmission channel")
		c.flush()
		return false
	case "STARTTLS":
		return c.commandTLS(line, early)
	case "AUTH":
		return c.auth(line, args, early)
	case "XFORWARD", "XCLIENT":
		return c.client(verb, line, args, early)
	}
	return plain("500 5.5.1 Unrecognized command")
}

func (c *conn) hello(verb, line, args string, early bool) bool {
	if (verb == "LHLO") != c.p.o.LMTP {
		return c.answer(verb, line, early, "500 5.5.1 Unrecognized command")
	}
	lines := []string{c.p.o.Hostname + " greets " + args}
	if verb != "HELO" {
		for _, extension := range c.p.o.Extensions {
			if _, ok := c.announced(strings.Fields(extension + " -")[0]); ok {
				lines = append(lines, extension)
			}
		}
	}
	usual := make([]string, len(lines))
	for i, l := range lines {
		separator := "-"
		if i == len(lines)-1 {
			separator = " "
		}
		usual[i] = "250" + separator + l
	}
	cmd, r, reply := c.ask(verb, line, early, strings.Join(usual, "\n"))
	if code(reply)/100 == 2 {
		c.abandon()
		c.helo = args
	}
	return c.send(cmd, r, reply)
}

func (c *conn) mail(line, args string, early bool) bool {
	path, params, ok := parsePath(args, "FROM:")
	usual := "250 2.1.0 Sender OK"
	switch {
	case c.helo == "":
		usual = "503 5.5.1 Send hello first"
	case c.tx != nil:
		usual = "503 5.5.1 Nested MAIL"
	case !ok:
		usual = "501 5.5.4 Syntax: MAIL FROM:<address>"
	default:
		if refusal := c.checkParams(params, mailParams); refusal != "" {
			usual = refusal
		}
	}
	began := time.Now()
	cmd, r, reply := c.ask("MAIL", line, early, usual)
	if code(reply)/100 == 2 {
		c.abandon()
		c.tx = &Transaction{
			Conn: c.number, Port: c.port, Began: began,
			Helo: c.helo, TLS: c.tls, User: c.user, Proxy: c.proxy,
			XForward: maps.Clone(c.xforward), XClient: maps.Clone(c.xclient),
			From: path, MailParams: params,
		}
	}
	return c.send(cmd, r, reply)
}

func (c *conn) rcpt(line, args string, early bool) bool {
	path, params, ok := parsePath(args, "TO:")
	usual := "250 2.1.5 Recipient OK"
	switch {
	case c.tx == nil:
		usual = "503 5.5.1 Send MAIL first"
	case !ok:
		usual = "501 5.5.4 Syntax: RCPT TO:<address>"
	default:
		if refusal := c.checkParams(params, rcptParams); refusal != "" {
			usual = refusal
		}
	}
	cmd, r, reply := c.ask("RCPT", line, early, usual)
	if c.tx != nil {
		c.tx.Rcpts = append(c.tx.Rcpts, Rcpt{Path: path, Params: params, Reply: reply})
	}
	return c.send(cmd, r, reply)
}

// mailParams and rcptParams name the extension that a parameter belongs to.
var (
	mailParams = map[string]string{"SIZE": "SIZE", "BODY": "8BITMIME", "SMTPUTF8": "SMTPUTF8", "RET": "DSN", "ENVID": "DSN", "AUTH": "AUTH"}
	rcptParams = map[string]string{"NOTIFY": "DSN", "ORCPT": "DSN"}
)

// checkParams returns a refusal for what wasn't announced or is too large.
func (c *conn) checkParams(params []string, extensions map[string]string) string {
	for _, param := range params {
		name, value, _ := strings.Cut(strings.ToUpper(param), "=")
		extension := extensions[name]
		if param == "BODY=BINARYMIME" {
			extension = "BINARYMIME"
		}
		if _, ok := c.announced(extension); !ok {
			return "555 5.5.4 Parameter not supported: " + param
		}
		if name == "SIZE" {
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return "501 5.5.4 Invalid SIZE"
			}
			if limit := c.sizeLimit(); limit > 0 && n > limit {
				return tooLarge
			}
		}
	}
	return ""
}

const tooLarge = "552 5.3.4 Message size exceeds fixed maximum message size"

// parsePath splits "FROM:<path> parameters". A quoted local part may contain anything.
func parsePath(args, prefix string) (path string, params []string, ok bool) {
	args = strings.TrimLeft(args, " ")
	if len(args) < len(prefix) || !strings.EqualFold(args[:len(prefix)], prefix) {
		return "", nil, false
	}
	rest, ok := strings.CutPrefix(strings.TrimLeft(args[len(prefix):], " "), "<")
	if !ok {
		return "", nil, false
	}
	quoted := false
	for i := 0; i < len(rest); i++ {
		switch {
		case quoted && rest[i] == '\\':
			i++
		case rest[i] == '"':
			quoted = !quoted
		case rest[i] == '>' && !quoted:
			return rest[:i], strings.Fields(rest[i+1:]), true
		}
	}
	return "", nil, false
}

func (c *conn) commandTLS(line string, early bool) bool {
	usual := "220 2.0.0 Ready to start TLS"
	if _, ok := c.announced("STARTTLS"); !ok {
		usual = "502 5.5.1 STARTTLS not available"
	}
	cmd, r, reply := c.ask("STARTTLS", line, early, usual)
	if !c.send(cmd, r, reply) {
		return false
	}
	if code(reply) != 220 {
		return true
	}
	c.abandon()
	c.helo, c.user = "", ""
	return c.flush() == nil && c.p.o.TLS != nil && c.startTLS()
}

// auth takes PLAIN (RFC 4616) and LOGIN.
func (c *conn) auth(line, args string, early bool) bool {
	if _, ok := c.announced("AUTH"); !ok {
		return c.answer("AUTH", line, early, "502 5.5.1 AUTH not available")
	}
	mechanism, initial, given := strings.Cut(args, " ")
	// prompt asks for one more line, if it wasn't given with the command.
	prompt := func(challenge string) (string, bool) {
		answer := initial
		if !given {
			c.write("334 " + base64.StdEncoding.EncodeToString([]byte(challenge)))
			var err error
			if answer, _, err = c.readLine(); err != nil {
				return "", false
			}
		}
		given = false
		plain, err := base64.StdEncoding.DecodeString(answer)
		return string(plain), err == nil
	}
	var user, password string
	ok := false
	switch strings.ToUpper(mechanism) {
	case "PLAIN":
		var response string
		if response, ok = prompt(""); ok {
			f := strings.Split(response, "\x00") // authorization identity, login, password
			if ok = len(f) == 3; ok {
				user, password = f[1], f[2]
			}
		}
	case "LOGIN":
		if user, ok = prompt("Username:"); ok {
			password, ok = prompt("Password:")
		}
	default:
		return c.answer("AUTH", line, early, "504 5.5.4 Unrecognized authentication type")
	}
	usual := "535 5.7.8 Authentication credentials invalid"
	if want, known := c.p.o.Users[user]; ok && known && want == password {
		usual = "235 2.7.0 Authentication successful"
	}
	cmd, r, reply := c.ask("AUTH", line, early, usual)
	if code(reply) == 235 {
		c.user = user
	}
	return c.send(cmd, r, reply)
}

// client takes Postfix' XFORWARD and XCLIENT. Values are kept as they stood.
func (c *conn) client(verb, line, args string, early bool) bool {
	if _, ok := c.announced(verb); !ok {
		return c.answer(verb, line, early, "502 5.5.1 "+verb+" not available")
	}
	usual := "250 2.0.0 OK"
	if verb == "XCLIENT" {
		usual = fmt.Sprintf("220 %s ESMTP", c.p.o.Hostname)
	}
	cmd, r, reply := c.ask(verb, line, early, usual)
	if code(reply)/100 == 2 {
		attributes := &c.xforward
		if verb == "XCLIENT" { // the session begins anew
			c.abandon()
			c.helo = ""
			attributes = &c.xclient
		}
		if *attributes == nil {
			*attributes = make(map[string]string)
		}
		for _, attribute := range strings.Fields(args) {
			name, value, _ := strings.Cut(attribute, "=")
			(*attributes)[strings.ToUpper(name)] = value
		}
	}
	return c.send(cmd, r, reply)
}
