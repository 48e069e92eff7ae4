//! GPUs: which there are, and which is whose.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bacnode_protocol::id::ExecutionId;

use super::super::RunError;

/// How long a vendor's tool may take.
const TOOL_TIMEOUT: Duration = Duration::from_secs(5);

/// Who made a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vendor {
    /// Found by `nvidia-smi`.
    Nvidia,
    /// Found by `rocm-smi`.
    Amd,
}

/// A GPU of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// Who made it.
    pub vendor: Vendor,
    /// What names it for its driver.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// Bytes of memory.
    pub memory: u64,
}

/// Asks the vendors' tools; where there is none there are no GPUs.
pub(super) async fn find() -> Vec<Gpu> {
    let nvidia = ["--query-gpu=uuid,name,memory.total", "--format=csv,noheader,nounits"];
    let amd = ["--showproductname", "--showmeminfo", "vram", "--json"];
    let mut gpus = tool("nvidia-smi", &nvidia).await.map(|text| nvidia_gpus(&text)).unwrap_or_default();
    gpus.extend(tool("rocm-smi", &amd).await.map(|text| amd_gpus(&text)).unwrap_or_default());
    gpus
}

async fn tool(name: &str, args: &[&str]) -> Option<String> {
    let output = tokio::process::Command::new(name).args(args).kill_on_drop(true).output();
    let output = tokio::time::timeout(TOOL_TIMEOUT, output).await.ok()?.ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// One line a GPU: its UUID, its name, its mebibytes.
fn nvidia_gpus(text: &str) -> Vec<Gpu> {
    let lines = text.lines().filter_map(|line| {
        let mut fields = line.split(',').map(str::trim);
        let (id, name, memory) = (fields.next()?, fields.next()?, fields.next()?);
        // Some boards do not tell their memory: `[N/A]`.
        let memory = memory.parse::<u64>().unwrap_or(0) << 20;
        id.starts_with("GPU-").then(|| Gpu { vendor: Vendor::Nvidia, id: id.into(), name: name.into(), memory })
    });
    lines.collect()
}

/// An object a card, its keys differing between versions of the tool.
fn amd_gpus(text: &str) -> Vec<Gpu> {
    let Ok(serde_json::Value::Object(cards)) = serde_json::from_str(text) else { return Vec::new() };
    let cards = cards.iter().filter_map(|(card, fields)| {
        let index = card.strip_prefix("card")?;
        let field = |names: &[&str]| names.iter().find_map(|name| fields.get(*name)?.as_str());
        let name = field(&["Card Series", "Card series", "Card Model", "Card model"]).unwrap_or("AMD GPU");
        let memory = field(&["VRAM Total Memory (B)"]).and_then(|text| text.parse().ok()).unwrap_or(0);
        Some(Gpu { vendor: Vendor::Amd, id: index.into(), name: name.into(), memory })
    });
    cards.collect()
}

/// The GPUs, each given to one run at a time.
#[derive(Debug)]
pub(super) struct Gpus {
    all: Vec<Gpu>,
    /// Whose each is.
    taken: Mutex<Vec<Option<ExecutionId>>>,
}

impl Gpus {
    pub(super) fn new(all: Vec<Gpu>) -> Self {
        Self { taken: Mutex::new(vec![None; all.len()]), all }
    }

    pub(super) fn all(&self) -> &[Gpu] {
        &self.all
    }

    fn taken(&self) -> MutexGuard<'_, Vec<Option<ExecutionId>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many that nobody has, until they are freed.
    pub(super) fn take(&self, execution: &ExecutionId, count: u32) -> Result<Vec<&Gpu>, RunError> {
        let mut taken = self.taken();
        let free: Vec<usize> = (0..taken.len()).filter(|index| taken[*index].is_none()).collect();
        if free.len() < count as usize {
            return Err(RunError::Node(format!("{count} GPUs are wanted, {} are free", free.len())));
        }
        let given = free.into_iter().take(count as usize);
        Ok(given.inspect(|index| taken[*index] = Some(*execution)).map(|index| &self.all[index]).collect())
    }

    /// Those that a run has from a former life of the node.
    pub(super) fn take_again(&self, execution: &ExecutionId, ids: &[String]) {
        let mut taken = self.taken();
        for (gpu, taken) in self.all.iter().zip(taken.iter_mut()).filter(|(gpu, _)| ids.contains(&gpu.id)) {
            debug_assert!(taken.is_none(), "{} has two owners", gpu.id);
            *taken = Some(*execution);
        }
    }

    pub(super) fn free(&self, execution: &ExecutionId) {
        for taken in self.taken().iter_mut().filter(|taken| taken.as_ref() == Some(execution)) {
            *taken = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nvidia_smi_prints_is_understood() {
        let text = "GPU-2b7c1a52-8f5e-1f0f-95b7-d1d8f2a6f7c3, NVIDIA H200, 143771\n\
                    GPU-97aa4ab3-1de1-4b3c-9c1c-6a1a0d0d6f11, Tesla T4, 15360\nGPU-x, Orin (nvgpu), [N/A]\n";
        let gpus = nvidia_gpus(text);
        assert_eq!(gpus.len(), 3);
        assert_eq!((gpus[0].name.as_str(), gpus[0].memory), ("NVIDIA H200", 143_771 << 20));
        assert_eq!(gpus[2].memory, 0);
        assert!(nvidia_gpus("No devices were found\n").is_empty());
        assert!(nvidia_gpus("NVIDIA-SMI has failed because it couldn't communicate with the driver\n").is_empty());
    }

    #[test]
    fn what_rocm_smi_prints_is_understood() {
        let text = r#"{"card0": {"VRAM Total Memory (B)": "68702699520", "VRAM Total Used Memory (B)": "10960896",
            "Card series": "AMD INSTINCT MI250", "Card model": "0x0b0c", "Card vendor": "Advanced Micro Devices"},
            "system": {"Driver version": "6.2.4"}}"#;
        let gpus = amd_gpus(text);
        assert_eq!(gpus.len(), 1);
        assert_eq!((gpus[0].name.as_str(), gpus[0].memory), ("AMD INSTINCT MI250", 68_702_699_520));
        assert!(amd_gpus("WARNING: No AMD GPUs specified\n").is_empty());
    }

    #[test]
    fn a_gpu_is_given_to_one_run_at_a_time() {
        let gpu = |id: &str| Gpu { vendor: Vendor::Nvidia, id: id.into(), name: "g".into(), memory: 0 };
        let gpus = Gpus::new(vec![gpu("a"), gpu("b")]);
        let [one, two, three] = [1, 2, 3].map(|n| ExecutionId([n; 20]));
        let first = gpus.take(&one, 1).expect("one is free");
        let second = gpus.take(&two, 1).expect("another is free");
        assert_ne!(first[0].id, second[0].id);
        gpus.take(&three, 1).expect_err("all are taken");
        gpus.free(&one);
        assert_eq!(gpus.take(&three, 1).expect("one is free again")[0].id, first[0].id);
    }
}
