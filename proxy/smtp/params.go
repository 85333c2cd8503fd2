package smtp

import (
	"strconv"
	"strings"
	"unicode/utf8"

	gosmtp "github.com/emersion/go-smtp"

	"mailcutover/mail"
)

// offers is what the last EHLO offered, as far as parameters depend on it.
type offers struct {
	size  int64 // 0: no limit
	bit8  bool
	utf8  bool
	esmtp bool // false after HELO: no parameter at all
}

var (
	replyParamSyntax  = mail.NewReply(501, 5, 5, 4, "Malformed parameter")
	replyParamTwice   = mail.NewReply(501, 5, 5, 4, "Parameter given twice")
	replyParamUnknown = mail.NewReply(555, 5, 5, 4, "Parameter not supported")
)

// parseMailParams parses what follows the path of MAIL. What it refuses, it refuses
// with the reply that it returns.
func parseMailParams(s string, offer offers) (*gosmtp.MailOptions, *mail.Reply) {
	opts := &gosmtp.MailOptions{}
	var seen uint8
	for name, value := range eachParam(s) {
		var bit uint8
		ok := true
		switch {
		case !offer.esmtp:
			return nil, replyParamUnknown
		case strings.EqualFold(name, "SIZE"):
			bit = 1
			opts.Size, ok = parseSize(value)
		case strings.EqualFold(name, "BODY"):
			bit = 2
			switch {
			case strings.EqualFold(value, "7BIT"):
				opts.Body = gosmtp.Body7Bit
			case strings.EqualFold(value, "8BITMIME") && offer.bit8:
				opts.Body = gosmtp.Body8BitMIME
			case strings.EqualFold(value, "8BITMIME"), strings.EqualFold(value, "BINARYMIME"):
				return nil, replyParamUnknown
			default:
				ok = false
			}
		case strings.EqualFold(name, "SMTPUTF8") && offer.utf8:
			bit = 4
			opts.UTF8, ok = true, value == ""
		case strings.EqualFold(name, "RET"):
			bit = 8
			switch {
			case strings.EqualFold(value, "FULL"):
				opts.Return = gosmtp.DSNReturnFull
			case strings.EqualFold(value, "HDRS"):
				opts.Return = gosmtp.DSNReturnHeaders
			default:
				ok = false
			}
		case strings.EqualFold(name, "ENVID"): // RFC 3461 section 4.4: 100 characters
			bit = 16
			opts.EnvelopeID = value
			ok = value != "" && len(value) <= 100 && isPrintableXtext(value)
		case strings.EqualFold(name, "AUTH"): // RFC 4954 section 5: from whom we don't trust, as AUTH=<>
			bit = 32
			ok = value == "<>" || value != "" && isPrintableXtext(value)
		default:
			return nil, replyParamUnknown
		}
		if !ok {
			return nil, replyParamSyntax
		}
		if seen&bit != 0 {
			return nil, replyParamTwice
		}
		seen |= bit
	}
	if offer.size > 0 && opts.Size > offer.size {
		return nil, replyTooBig
	}
	return opts, nil
}

// parseRcptParams does the same for RCPT (RFC 3461 section 4).
func parseRcptParams(s string, esmtp, utf8OK bool) (gosmtp.RcptOptions, *mail.Reply) {
	var opts gosmtp.RcptOptions
	for name, value := range eachParam(s) {
		switch {
		case !esmtp:
			return opts, replyParamUnknown
		case strings.EqualFold(name, "NOTIFY"):
			if opts.Notify != nil {
				return opts, replyParamTwice
			}
			var ok bool
			if opts.Notify, ok = parseNotify(value); !ok {
				return opts, replyParamSyntax
			}
		case strings.EqualFold(name, "ORCPT"):
			if opts.OriginalRecipientType != "" {
				return opts, replyParamTwice
			}
			kind, addr, _ := strings.Cut(value, ";")
			ok := addr != "" && len(addr) <= mail.MaxPathBytes
			switch {
			case strings.EqualFold(kind, "rfc822"):
				opts.OriginalRecipientType = gosmtp.DSNAddressTypeRFC822
				ok = ok && isPrintableXtext(addr)
			case strings.EqualFold(kind, "utf-8"):
				opts.OriginalRecipientType = gosmtp.DSNAddressTypeUTF8
				ok = ok && isUTF8Xtext(addr, utf8OK)
			default:
				ok = false
			}
			if !ok {
				return opts, replyParamSyntax
			}
			opts.OriginalRecipient = addr
		default:
			return opts, replyParamUnknown
		}
	}
	return opts, nil
}

// eachParam yields the parameters of s (RFC 5321 section 4.1.1.11): one without a
// value as name and "". A name with an empty value is yielded with "=", which no
// parameter takes.
func eachParam(s string) func(yield func(name, value string) bool) {
	return func(yield func(name, value string) bool) {
		for s != "" {
			var param string
			param, s, _ = strings.Cut(s, " ")
			if param == "" {
				continue
			}
			name, value, has := strings.Cut(param, "=")
			if has && value == "" {
				value = "="
			}
			if !yield(name, value) {
				return
			}
		}
	}
}

// parseSize parses size-value of RFC 1870 section 4: 1 to 20 digits. What doesn't fit
// is the largest number, which is beyond any limit.
func parseSize(s string) (int64, bool) {
	if s == "" || len(s) > 20 {
		return 0, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 1<<63 - 1, true
	}
	return n, true
}

// parseNotify parses the value of NOTIFY: NEVER alone, or a set of the others.
func parseNotify(s string) ([]gosmtp.DSNNotify, bool) {
	if strings.EqualFold(s, "NEVER") {
		return []gosmtp.DSNNotify{gosmtp.DSNNotifyNever}, true
	}
	var set []gosmtp.DSNNotify
	for word := range strings.SplitSeq(s, ",") {
		var n gosmtp.DSNNotify
		switch {
		case strings.EqualFold(word, "SUCCESS"):
			n = gosmtp.DSNNotifySuccess
		case strings.EqualFold(word, "FAILURE"):
			n = gosmtp.DSNNotifyFailure
		case strings.EqualFold(word, "DELAY"):
			n = gosmtp.DSNNotifyDelayed
		default:
			return nil, false
		}
		for _, have := range set {
			if have == n {
				return nil, false
			}
		}
		set = append(set, n)
	}
	return set, true
}

// decodeXtext decodes xtext (RFC 3461 section 4).
func decodeXtext(s string) (string, bool) {
	if strings.IndexByte(s, '+') < 0 {
		return s, isXchars(s)
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '+' {
			if !isXchar(s[i]) {
				return "", false
			}
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", false
		}
		hi, lo := hexDigit(s[i+1]), hexDigit(s[i+2])
		if hi < 0 || lo < 0 {
			return "", false
		}
		b.WriteByte(byte(hi<<4 | lo))
		i += 2
	}
	return b.String(), true
}

// isPrintableXtext reports whether s is xtext for printable ASCII, which is all that
// an envelope id or an rfc822 address may be (RFC 3461 sections 4.2 and 4.4).
func isPrintableXtext(s string) bool {
	d, ok := decodeXtext(s)
	for i := range len(d) {
		ok = ok && d[i] >= ' ' && d[i] < 0x7f
	}
	return ok
}

// isUTF8Xtext reports whether s is an address in one of the two forms of RFC 6533
// section 3; the one with raw UTF-8 only if raw.
func isUTF8Xtext(s string, raw bool) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c >= 0x80:
			if !raw {
				return false
			}
		case c == '\\':
			digits, _, ok := strings.Cut(s[i+1:], "}")
			if !ok || len(digits) < 4 || len(digits) > 8 || digits[:2] != "x{" {
				return false
			}
			for j := 2; j < len(digits); j++ {
				if hexDigit(digits[j]) < 0 {
					return false
				}
			}
			r, err := strconv.ParseUint(digits[2:], 16, 32)
			if err != nil || r <= ' ' && r != ' ' || r == 0x7f || !utf8.ValidRune(rune(r)) {
				return false
			}
			i += len(digits) + 1
		case !isXchar(c):
			return false
		}
	}
	return true
}

func isXchars(s string) bool {
	for i := range len(s) {
		if !isXchar(s[i]) {
			return false
		}
	}
	return true
}

// isXchar is xchar of RFC 3461 section 4.
func isXchar(c byte) bool { return c > ' ' && c < 0x7f && c != '+' && c != '=' }

// hexDigit returns the value of an upper-case hexadecimal digit (RFC 3461 section 4), or -1.
func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
