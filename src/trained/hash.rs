//! Identity of a model, by what its embeddings depend on.

use sha2::{Digest, Sha256};

use super::TrainedError;
use crate::data::text::{Tokenizer, TokenizerConfig};
use crate::model::{Flip, GraphDevice, ModelError};

/// SHA-256 of architecture, parameters and tokenizer.
pub(super) fn of<D: GraphDevice>(
    model: &Flip<f32, D>,
    tokenizer: Option<&Tokenizer>,
) -> Result<String, TrainedError> {
    let mut config = model.config().clone();
    // Where the tokenizer lies is not what it is.
    config.text.tokenizer = TokenizerConfig::Json(Default::default());
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    add(format!("{config:?}").as_bytes());
    add(tokenizer.map(Tokenizer::to_json).transpose()?.unwrap_or_default().as_bytes());
    for (place, parameter) in model.parameters().iter().enumerate() {
        let values = model.masters().read_f32(place).map_err(ModelError::device)?;
        add(parameter.outline().0.as_bytes());
        add(bytemuck::cast_slice(&values));
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
