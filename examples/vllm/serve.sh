#!/bin/bash
# serve.sh - one of the two vLLM servers of the example, on this machine's CPUs.
#
#   serve.sh prefill|decode [OPTION OF vllm serve...]
#
# MOONCAKE_PROTOCOL in the environment is the connector's mooncake_protocol, by
# default tcp; an empty one leaves it at the connector's own default, rdma.
set -eu
cd "$(dirname "$0")/../.."

case ${1:-} in
prefill) port=8101 role=kv_producer ;;
decode) port=8102 role=kv_consumer ;;
*) echo "usage: serve.sh prefill|decode [OPTION...]" >&2; exit 2 ;;
esac
shift

protocol=${MOONCAKE_PROTOCOL-tcp}
extra=${protocol:+"\"mooncake_protocol\": \"$protocol\""}

# Of the CPU: 1 GiB of KV cache, and threads that do not bind themselves to
# cores which the other server has. VLLM_HOST_IP is where the engines listen.
export VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=nobind \
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 \
	VLLM_HOST_IP=127.0.0.1 PYTHONPATH=$PWD/examples/vllm/shim
# What "vllm serve" runs; of the CPU's wheel it does not find its own version.
exec build/vllm/venv/bin/python -m vllm.entrypoints.openai.api_server \
	--model build/vllm/model --served-model-name tiny \
	--host 127.0.0.1 --port "$port" --dtype float32 --enforce-eager \
	--max-model-len 2048 --no-enable-prefix-caching \
	--kv-transfer-config "{\"kv_connector\": \"MooncakeConnector\",
		\"kv_role\": \"$role\",
		\"kv_connector_extra_config\": {$extra}}" "$@"
