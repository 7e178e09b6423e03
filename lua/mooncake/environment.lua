-- environment.lua - what the environment says to every command that opens an engine: the
-- last paragraph of their help. A command adds it to its own text.

return [[


Environment: MOONCAKE_KEY_FILE is the file of the cluster key. MOONCAKE_TLS_CERT and
MOONCAKE_TLS_KEY, PEM files of a certificate and its key, turn TLS 1.3 on;
MOONCAKE_TLS_CA has signed the peers' (default: the certificate). MOONCAKE_PROFILE=v1
is for speaking the public Mooncake's protocol too, which has no authentication. What an
option says comes first. MC_LOG is what is logged to standard error: error, warn
(default), info or debug.]]
