package redismodel

import (
	"fmt"
	"strconv"
)

// Answers of commands are: string (a bulk string), int64, nil, []any, and these.
type (
	status    string   // such as OK
	failure   string   // an error, with its code in front
	nullArray struct{} // nil where an array would be
	pairs     []any    // a map in RESP3, an array in RESP2
	readReply []any    // XREAD's: a map in RESP3, an array of pairs in RESP2
	verbatim  string
)

// Error implements error.
func (f failure) Error() string { return string(f) }

const (
	syntaxError = failure("ERR syntax error")
	notInteger  = failure("ERR value is not an integer or out of range")
	ok          = status("OK")
)

// or returns err if there is one, else answer.
func or(err error, answer any) any {
	if err != nil {
		return err
	}
	return answer
}

// appendReply encodes an answer in RESP of that version.
func appendReply(b []byte, version int, r any) []byte {
	switch r := r.(type) {
	case nil:
		if version == 3 {
			return append(b, "_\r\n"...)
		}
		return append(b, "$-1\r\n"...)
	case nullArray:
		if version == 3 {
			return append(b, "_\r\n"...)
		}
		return append(b, "*-1\r\n"...)
	case status:
		return append(append(append(b, '+'), r...), "\r\n"...)
	case error:
		return append(append(append(b, '-'), r.Error()...), "\r\n"...)
	case int64:
		return append(strconv.AppendInt(append(b, ':'), r, 10), "\r\n"...)
	case string:
		return append(append(head(b, '$', len(r)), r...), "\r\n"...)
	case verbatim:
		if version == 3 {
			b = append(head(b, '=', len(r)+4), "txt:"...)
		} else {
			b = head(b, '$', len(r))
		}
		return append(append(b, r...), "\r\n"...)
	case []any:
		return appendAll(head(b, '*', len(r)), version, r)
	case pairs:
		if version == 3 {
			return appendAll(head(b, '%', len(r)/2), version, r)
		}
		return appendAll(head(b, '*', len(r)), version, r)
	case readReply:
		if version == 3 {
			return appendAll(head(b, '%', len(r)/2), version, r)
		}
		b = head(b, '*', len(r)/2)
		for i := 0; i < len(r); i += 2 {
			b = appendAll(head(b, '*', 2), version, r[i:i+2])
		}
		return b
	}
	panic(fmt.Sprintf("redismodel: answer of type %T", r))
}

func head(b []byte, kind byte, n int) []byte {
	return append(strconv.AppendInt(append(b, kind), int64(n), 10), "\r\n"...)
}

func appendAll(b []byte, version int, list []any) []byte {
	for _, r := range list {
		b = appendReply(b, version, r)
	}
	return b
}
